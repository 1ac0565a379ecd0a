package node

import (
	"context"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
)

const (
	// renewalInterval is how often a node asks whether its certificate is to be renewed; renewalShare is
	// for certificates too short-lived for that interval.
	renewalInterval = 10 * time.Minute
	renewalShare    = 30
	// renewalTime bounds one such question.
	renewalTime = 30 * time.Second
)

// renewCertificate asks for a new certificate until ctx ends. Whether one is due is the master's decision.
func (n *Node) renewCertificate(ctx context.Context, id *trust.Identity, ask func(context.Context) error) {
	tick := time.NewTicker(min(renewalInterval, id.Lifetime()/renewalShare))
	defer tick.Stop()
	for failing, expires := false, id.Expires(); ; {
		err := ask(ctx)
		due := time.Until(id.Expires()) < id.Lifetime()/3 // until then a master that is away is no trouble
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && due && !failing:
			n.log.Warn("renew certificate; retrying", "expires", id.Expires(), "err", err)
		case id.Expires() != expires:
			expires = id.Expires()
			n.log.Info("certificate renewed", "expires", expires)
		}
		failing = err != nil && due
		select {
		case <-tick.C:
		case <-n.rotated:
		case <-ctx.Done():
			return
		}
	}
}

// askForCertificate asks the master, and once more after something new: that shows the master what this node has now.
func (n *Node) askForCertificate(ctx context.Context, id *trust.Identity) error {
	ctx, stop := context.WithTimeout(ctx, renewalTime)
	defer stop()
	for range 2 {
		if renewed, err := n.askOnce(ctx, id); err != nil || !renewed {
			return err
		}
	}
	return nil
}

// askOnce asks by a connection of its own, which shows the newest certificate.
func (n *Node) askOnce(ctx context.Context, id *trust.Identity) (renewed bool, err error) {
	client := api.NewRemoteAt(n.masterAddresses, id.Client(), "")
	defer client.Close()
	answer, err := api.Post[trust.Renewal](ctx, client, api.PathCertificate, id.RenewalRequest())
	if err != nil {
		return false, err
	}
	return id.Renew(n.trustDir(), answer)
}

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
		case <-ctx.Done():
			return
		}
	}
}

// askForCertificate asks the master, by a connection of its own: it shows which certificate this node has now.
func (n *Node) askForCertificate(ctx context.Context, id *trust.Identity) error {
	ctx, stop := context.WithTimeout(ctx, renewalTime)
	defer stop()
	client := api.NewRemoteAt(n.masterAddresses, id.Client(), "")
	defer client.Close()
	answer, err := api.Post[trust.Renewal](ctx, client, api.PathCertificate, struct{}{})
	if err != nil {
		return err
	}
	_, err = id.Renew(n.trustDir(), answer)
	return err
}

package membership

import (
	"context"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
)

const (
	// renewalInterval is how often a node asks whether its certificate is to be renewed. A
	// certificate too short-lived for that interval is asked for once in this share of its
	// lifetime.
	renewalInterval = 10 * time.Minute
	renewalShare    = 30
	// renewalTimeout bounds one request.
	renewalTimeout = 30 * time.Second
)

// RenewCertificate renews the certificate of this node until ctx ends. It calls ask at an interval,
// and whenever the master has other CAs; the master decides whether a new certificate is due.
func (s *Membership) RenewCertificate(ctx context.Context, ask func(context.Context) error) {
	id := s.id
	tick := time.NewTicker(min(renewalInterval, id.Lifetime()/renewalShare))
	defer tick.Stop()
	for failing, expires := false, id.Expires(); ; {
		err := ask(ctx)
		// until then, a master that does not answer is not a problem
		due := time.Now().After(trust.RenewalDue(id.Leaf()))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && due && !failing:
			s.log.Warn("renew certificate; retrying", "expires", id.Expires(), "err", err)
		case id.Expires() != expires:
			expires = id.Expires()
			s.log.Info("certificate renewed", "expires", expires)
		}
		failing = err != nil && due
		select {
		case <-tick.C:
		case <-s.staleCertificate:
		case <-ctx.Done():
			return
		}
	}
}

// AskForCertificate asks the master for a new certificate. After it got one it asks once more: that
// shows the master what this node has now.
func (s *Membership) AskForCertificate(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, renewalTimeout)
	defer stop()
	for range 2 { // each over a connection of its own, which presents the newest certificate
		client := api.NewRemoteAt(s.MasterAddresses, s.id.Client(), "")
		answer, err := api.Post[trust.Renewal](ctx, client, api.PathCertificate, s.id.RenewalRequest())
		client.Close()
		if err != nil {
			return err
		}
		if renewed, err := s.id.Renew(TrustDir(s.stateDir), answer); err != nil || !renewed {
			return err
		}
	}
	return nil
}

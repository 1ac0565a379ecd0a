package membership

import (
	"context"
	"slices"
	"time"

	"mlfnode/cluster"
)

// rejoinInterval is how often a node that sees no other one tries to reach its peers.
const rejoinInterval = 3 * time.Second

// Rejoin joins the peers whenever this node sees none of them, and the master whenever it is back,
// and remembers who is there. It runs until ctx ends.
func (s *Membership) Rejoin(ctx context.Context) error {
	tick := time.NewTicker(rejoinInterval)
	defer tick.Stop()
	changed := make(chan struct{}, 1)
	defer s.Gossip.Watch(func(cluster.Member) { nudge(changed) })()
	p := Peers{}
	if s.peers != nil {
		p = *s.peers
	} else if old, err := LoadPeers(s.stateDir); err == nil {
		p = *old
	}
	back := false
	var route gossipRoute
	for {
		master := s.masterGossip()
		if len(master) == 0 {
			route.look(ctx, s, p.Reached)
		}
		if back = back && len(master) > 0; back {
			back = !s.join(ctx, master) // its gossip may start last
		}
		there := s.GossipAddresses()
		if len(there) <= 1 && len(p.Gossip) > 0 {
			s.join(ctx, p.Gossip)
			there = s.GossipAddresses()
		}
		s.remember(&p, there)
		select {
		case <-tick.C:
		case <-changed:
		case <-s.masterBack:
			back = true
		case <-ctx.Done():
			return nil
		}
	}
}

// join reports whether one of the others answers.
func (s *Membership) join(ctx context.Context, others []string) bool {
	err := s.Gossip.Join(ctx, others)
	if err != nil {
		s.log.Debug("no other node answers", "err", err)
	}
	return err == nil
}

// masterGossip returns where the masters gossip that this node sees.
func (s *Membership) masterGossip() []string {
	var all []string
	for _, m := range s.Gossip.Members() {
		if m.There() && m.Has(cluster.Master) && m.Node != s.Gossip.Node() {
			all = append(all, hostPort(m.Address, m.Port))
		}
	}
	return all
}

// remember saves the members that are there when they have changed.
func (s *Membership) remember(p *Peers, there []string) {
	own := s.Local()
	there = slices.DeleteFunc(there, func(a string) bool { return a == hostPort(own.Address, own.Port) })
	there = there[:min(len(there), maxGossipPeers)]
	if len(there) == 0 || slices.Equal(there, p.Gossip) {
		return
	}
	p.Gossip = there
	if len(p.API) == 0 { // of a master itself
		p.API, p.NATS = []string{hostPort(own.Address, own.APIPort)}, []string{hostPort(own.Address, own.NATSPort)}
	}
	if err := p.save(s.stateDir); err != nil {
		s.log.Warn("members could not be remembered", "err", err)
	}
}

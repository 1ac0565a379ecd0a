package membership

import (
	"context"
	"log/slog"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/node/poll"
)

// rejoinInterval is how often a node that sees no other one tries to reach its peers.
const rejoinInterval = 3 * time.Second

// Rejoin joins the peers whenever this node sees none of them, and the master whenever it is back,
// and remembers who is there. It runs until ctx ends.
func (s *Membership) Rejoin(ctx context.Context) error {
	tick := time.NewTicker(rejoinInterval)
	defer tick.Stop()
	changed := poll.NewSignal()
	defer s.Gossip.Watch(func(cluster.Member) { changed.Set() })()
	p := Peers{}
	if s.peers != nil {
		p = *s.peers
	} else if old, err := LoadPeers(s.stateDir); err == nil {
		p = *old
	}
	back := false
	var route gossipRoute
	for {
		var master []string // where the masters gossip that this node sees
		for _, m := range s.Gossip.Members() {
			if m.There() && m.Has(grid.Master) && m.Node != s.Gossip.Node() {
				master = append(master, hostPort(m.Address, m.Port))
			}
		}
		if len(master) == 0 && s.authority == nil {
			route.look(ctx, s.Gossip, s.log, p.Reached)
		}
		if back = back && len(master) > 0; back {
			back = !join(ctx, s.Gossip, s.log, master) // its gossip may start last
		}
		there := s.GossipAddresses()
		if len(there) <= 1 && len(p.Gossip) > 0 {
			join(ctx, s.Gossip, s.log, p.Gossip)
			there = s.GossipAddresses()
		}
		if p.update(s.Local(), there) {
			if err := p.save(s.stateDir); err != nil {
				s.log.Warn("members could not be remembered", "err", err)
			}
		}
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
func join(ctx context.Context, gossip *cluster.Cluster, log *slog.Logger, others []string) bool {
	err := gossip.Join(ctx, others)
	if err != nil {
		log.Debug("no other node answers", "err", err)
	}
	return err == nil
}

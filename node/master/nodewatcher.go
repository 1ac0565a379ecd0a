package master

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

const (
	// nodeCheckInterval is how often the master checks which nodes are lost.
	nodeCheckInterval = 100 * time.Millisecond
	// restartGrace is how long an agent may take, after it has taken over what its predecessor
	// left, until it is heard from.
	restartGrace = time.Second
	// restartLimit is how long an agent may take that has announced its restart.
	restartLimit = 15 * time.Second
	// probeInterval is how often the gossip port of a node without a connection is probed, and
	// probeTimeout how long one probe takes.
	probeInterval = 200 * time.Millisecond
	probeTimeout  = time.Second
	// reportCost is how long a report of a node keeps the store busy: a flush of the disk for its
	// output and one for its events. Nodes at work report so seldom that the store has that time
	// for each of them in turn; with up to ten of them that changes nothing. Beyond slowestPace,
	// output would not be live.
	reportCost  = 1500 * time.Microsecond
	slowestPace = 500 * time.Millisecond
)

// nodeWatcher answers the heartbeats of nodes, keeps the samples in them, and detects which nodes
// are lost.
type nodeWatcher struct {
	*sampleStore
	m              *Master
	nodes          *nodeTable
	reportInterval atomic.Int64 // the time that nodes are to wait between reports; see reportCost
	awayReason     string       // why this master considers itself disconnected; owned by watch
}

// drainTimeout is how long AwaitDrain waits for a node.
const drainTimeout = 3 * time.Second

// AwaitDrain waits until a node that is heard from takes no more leases, or takes them again.
func (w *nodeWatcher) AwaitDrain(ctx context.Context, node grid.NodeID, drain bool) {
	poll.Within(ctx, drainTimeout, awaitInterval, func() bool { return w.nodes.drainApplied(node, drain, time.Now()) })
}

// AwaitKeys waits until all nodes that are heard from have the gossip keyring, or ctx ends.
func (w *nodeWatcher) AwaitKeys(ctx context.Context, keys uint64) {
	_ = poll.Until(ctx, awaitInterval, func() (bool, error) {
		return w.nodes.count(time.Now(), func(n *nodeState) bool { return n.keys != keys }) == 0, nil
	})
}

// awaitInterval is how often AwaitDrain and AwaitKeys check.
const awaitInterval = 20 * time.Millisecond

// watch answers heartbeats and detects which nodes have died.
func (w *nodeWatcher) watch(ctx context.Context) error {
	if w.m.cfg.Nodes == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	defer w.m.cfg.Store.Calls.HandleHeartbeats(w.handleHeartbeat)()
	defer w.m.cfg.Store.Calls.RefuseLeases(w.refusesLeases)()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer w.m.cfg.Nodes.Disconnections(func(node grid.NodeID) {
		if w.nodes.recordDisconnect(node, time.Now()) {
			w.m.log.Debug("connection of a node ended", "node", node)
			asking.Go(func() { w.probeAgent(ctx, node) })
		}
	})()
	var p selfCheck
	return poll.Until(ctx, nodeCheckInterval, func() (bool, error) {
		w.checkNodes(ctx, &p, time.Now())
		return false, nil
	})
}

// reportIntervalFor returns the time between two reports of each of so many nodes at work.
func reportIntervalFor(busy int) time.Duration {
	return min(time.Duration(busy)*reportCost, slowestPace)
}

// refusesLeases reports whether a node gets no leases of a lane: it is drained or was taken out of
// the cluster, or trials of the lane are withheld from it. Its directives say so as well, but they
// reach the node only with its next heartbeat.
func (w *nodeWatcher) refusesLeases(node grid.NodeID, lane grid.Lane) bool {
	return !w.m.cfg.Nodes.knows(node) || w.m.cfg.Nodes.refusesLane(node, lane)
}

// handleHeartbeat records what a node reports and returns its directives.
func (w *nodeWatcher) handleHeartbeat(node grid.NodeID, b *jetstream.Heartbeat) jetstream.Directives {
	if !w.m.cfg.Nodes.knows(node) {
		return jetstream.Directives{Drain: true, Reason: "the node was taken out of the cluster"}
	}
	now := time.Now()
	held := boundedHeld(b.Leases)
	reborn, mark := w.nodes.recordHeartbeat(node, b, now)
	if reborn {
		if void := w.m.leases.staleLeases(node, held); len(void) > 0 {
			w.m.post(func(s *scheduler) { s.reconciler.dropStaleLeases(node, void) })
		}
	}
	if b.Sample != nil {
		w.sampleStore.add(node, b.Sample, now)
	}
	o := jetstream.Directives{
		Keys: w.m.cfg.Nodes.Keys(), Pace: time.Duration(w.reportInterval.Load()), Mark: mark,
		Curves: w.m.cfg.History.CurveShare(),
	}
	open, shortened := w.m.leases.recordHeld(node, held, &o, now)
	if len(shortened) > 0 {
		w.m.post(func(s *scheduler) { // the node gives back trials of these leases
			for i := range shortened {
				h := &shortened[i]
				if f := s.feeds[h.Sweep]; f != nil && w.m.leases.holderOf(h.ID) == node {
					f.shortenLease(h.ID, h.Hi)
				}
			}
		})
	}
	if len(open) > 0 && b.Mark == mark && !b.Leaving && !b.Restarting {
		// calls of the store have their own timeout
		w.m.post(func(s *scheduler) { s.decideReconnected(context.Background(), node, open) })
	}
	if cas := w.m.cfg.Nodes.CAs; cas != nil {
		o.CAs = cas()
	}
	w.m.cfg.Nodes.setDirectives(&o, node)
	return o
}

// probeAgent probes the gossip port of a node whose connection has ended, until the node is heard
// from again or is lost.
func (w *nodeWatcher) probeAgent(ctx context.Context, node grid.NodeID) {
	_ = poll.Until(ctx, probeInterval, func() (bool, error) {
		try, stop := context.WithTimeout(ctx, probeTimeout)
		defer stop()
		refused := w.m.cfg.Nodes.Refused(try, node)
		return !w.nodes.recordProbe(node, refused, time.Now()), nil
	})
}

// checkNodes makes the scheduler requeue what lost nodes held.
func (w *nodeWatcher) checkNodes(ctx context.Context, p *selfCheck, now time.Time) {
	gossip := w.nodes.gossipStates(w.m.cfg.Nodes.Members())
	if known := w.m.cfg.Nodes.Known; known != nil {
		for _, node := range w.nodes.removeUnknown(known) { // nothing waits for it any more
			w.sampleStore.removeNode(node)
			w.m.log.Info("node was taken out of the cluster; its leases are requeued", "node", node)
			w.m.post(func(s *scheduler) {
				reason := fmt.Sprintf("the node %s was taken out of the cluster", node)
				s.fencer.handleNodeDeath(ctx, node, nodeLoss{reason, true})
				s.health.forgetNode(node)
			})
		}
	}
	busy := w.nodes.count(now, func(n *nodeState) bool { return n.busy })
	w.reportInterval.Store(int64(reportIntervalFor(busy)))
	others, silent := w.nodes.countOthers(w.m.cfg.Nodes.Self, now)
	linked := silent == 0 || w.m.cfg.Nodes.LinkUp == nil || w.m.cfg.Nodes.LinkUp()
	why := p.update(now, linked, others, silent)
	switch {
	case why == w.awayReason:
	case why != "":
		w.m.log.Warn("this master considers itself disconnected and requeues no trials of other nodes", "why", why)
	default:
		w.m.log.Info("this master hears from the other nodes again")
	}
	w.awayReason = why
	o := w.m.settings().outage
	for node, l := range w.nodes.takeLost(now, p.lastAway, why != "", gossip, &o) {
		if node == w.m.cfg.Nodes.Self && !l.left {
			continue
		}
		w.m.log.Warn("node is lost; its leases are requeued", "node", node, "how", l.reason)
		w.m.post(func(s *scheduler) { s.fencer.handleNodeDeath(ctx, node, l) })
	}
}

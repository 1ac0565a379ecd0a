package master

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// Reconcile says which attempt of a trial goes on when a node that was away is back with a running
// attempt while its replacement runs elsewhere. The other one is stopped, and does not count as a
// failure.
type Reconcile string

// The ways to reconcile.
const (
	LongestRunning  Reconcile = "longest_running"
	KeepOriginal    Reconcile = "keep_original"
	KeepReplacement Reconcile = "keep_replacement"
)

// prefers reports whether the first of two attempts of a trial goes on.
func (r Reconcile) prefers(a, b *jetstream.RunningAttempt) bool {
	original := a.Attempt < b.Attempt
	switch r {
	case KeepOriginal:
		return original
	case KeepReplacement:
		return !original
	}
	if a.Age == b.Age {
		return original
	}
	return a.Age > b.Age
}

// decideReconnected decides about leases that a node works on and that the master has requeued, or
// has lost in a crash: it decides for each running attempt whether it goes on. A lease under which
// one goes on is held from now on, and starts no further trial. What can't be decided now is asked
// again by the node's next heartbeat.
func (s *scheduler) decideReconnected(ctx context.Context, node grid.NodeID, open []jetstream.HeldLease) {
	if s.m.Applied() < s.lastDecision {
		return // history does not hold the last decision yet
	}
	now := time.Now()
	goOn, stopped := 0, 0
	defer func() {
		if goOn+stopped > 0 {
			s.m.log.Info("node holds leases that were requeued or lost",
				"node", node, "continue", goOn, "stopped", stopped)
		}
	}()
	for i := range open {
		h := &open[i]
		if s.m.leases.isDecided(h.ID, node) {
			continue // by an earlier heartbeat
		}
		b := &reconnection{s: s, node: node, lease: h, f: s.feeds[h.Sweep]}
		if err := b.decideAttempts(ctx, now); err != nil {
			s.m.log.Warn("attempts of a node that reconnected must wait", "node", node, "sweep", h.Sweep, "err", err)
			return
		}
		b.applyDecision(now)
		if goOn += len(b.continuing); len(b.continuing) == 0 {
			stopped++
		}
	}
}

// reconnection is a lease of a node that was away.
type reconnection struct {
	s     *scheduler
	node  grid.NodeID
	lease *jetstream.HeldLease
	f     *feed // nil when nothing of the sweep is left to do

	continuing []jetstream.RunningAttempt // attempts that go on
	rivals     []grid.LeaseID             // other leases of the trials in continuing, which are revoked
	batch      grid.Batch
}

// decideAttempts decides about each attempt, and publishes the decisions as events.
func (b *reconnection) decideAttempts(ctx context.Context, now time.Time) error {
	if b.f == nil {
		return nil
	}
	b.batch = grid.Batch{V: grid.EventVersion, Sweep: b.f.sweep.ID}
	for i := range b.lease.Attempts {
		run := &b.lease.Attempts[i]
		if run.Index < 0 || run.Index >= b.f.count || !strings.HasPrefix(run.Run, string(b.node)+".") {
			continue
		}
		if err := b.decideAttempt(ctx, run, now); err != nil {
			return err
		}
	}
	if len(b.batch.Events) == 0 {
		return nil
	}
	if err := b.s.publishDecision(ctx, &b.batch); err != nil {
		return fmt.Errorf("store which attempts go on: %w", err)
	}
	return nil
}

// decideAttempt decides about one attempt.
func (b *reconnection) decideAttempt(ctx context.Context, run *jetstream.RunningAttempt, now time.Time) error {
	t, _, err := b.s.m.cfg.History.Trial(ctx, grid.TrialID{Sweep: b.f.sweep.ID, Index: run.Index})
	if err != nil {
		return fmt.Errorf("load trial %d: %w", run.Index, err)
	}
	current := t.State == grid.Running && t.Run == run.Run
	if t.State.Terminal() || (run.Attempt <= t.Floor && !current && !t.IsAway(run.Run)) {
		return nil
	}
	floor := t.Attempts
	var rivals []grid.LeaseID
	for _, id := range b.f.leasesOver(run.Index, b.lease.ID) {
		l, c := b.f.leases[id], b.s.m.leases.get(id)
		switch {
		case l.hi-l.lo > 1 && !l.detached:
			continue // its other trials go on; what it reports of this one is superseded
		case c.node != "" && c.node != b.node:
			rival := jetstream.RunningAttempt{Index: run.Index, Attempt: l.attempt + max(c.deliveries, 1) - 1}
			for _, r := range c.attempts {
				if r.Index == run.Index {
					rival = r
					rival.Age += now.Sub(c.lastHeartbeat)
				}
			}
			if !b.s.m.settings().outage.Reconcile.prefers(run, &rival) {
				b.batch.Events = append(b.batch.Events, grid.Event{
					Kind: grid.Fenced, Index: run.Index, Attempt: run.Attempt, Run: run.Run, Time: now.UnixMicro(),
					Result: &grid.Result{
						Class: grid.ClassHalt, ExitCode: grid.NoExit,
						Reason: "stopped: the trial continues on node " + string(c.node),
					},
				})
				return nil
			}
			floor = max(floor, rival.Attempt)
		default:
			floor = max(floor, l.attempt)
		}
		rivals = append(rivals, id)
	}
	b.continuing, b.rivals = append(b.continuing, *run), append(b.rivals, rivals...)
	if current {
		return nil
	}
	b.batch.Events = append(b.batch.Events, grid.Event{
		Kind: grid.Reconnected, Index: run.Index, Attempt: run.Attempt, Run: run.Run, Time: now.UnixMicro(),
		Floor: floor, Node: b.node,
		Result: &grid.Result{ExitCode: grid.NoExit, Started: run.Started,
			Reason: fmt.Sprintf("stopped: node %s is back, and attempt %d continues there", b.node, run.Attempt)},
	})
	return nil
}

// applyDecision records the lease as held, or refuses it.
func (b *reconnection) applyDecision(now time.Time) {
	s, id := b.s, b.lease.ID
	if len(b.continuing) == 0 {
		s.m.log.Debug("attempts under a lease of a node that was away are stopped",
			"node", b.node, "sweep", b.lease.Sweep, "lease", id)
		s.m.leases.refuse(id, b.node)
		return
	}
	lo, hi, attempt := b.continuing[0].Index, b.continuing[0].Index+1, b.continuing[0].Attempt
	for _, run := range b.continuing {
		s.m.log.Debug("attempt of a node that was away continues",
			"node", b.node, "sweep", b.lease.Sweep, "trial", run.Index, "attempt", run.Attempt)
		b.f.assigned.Add(run.Index, run.Index+1)
		b.f.retries.remove(run.Index, run.Index+1)
		b.f.started[run.Index] = max(b.f.started[run.Index], run.Attempt)
		lo, hi = min(lo, run.Index), max(hi, run.Index+1)
		attempt = max(attempt, b.f.started[run.Index]) // as for rivals
		delete(b.f.awayTrials, run.Index)
	}
	delete(s.missing, id)
	// the queue does not have it, and some of its trials may be leased once more by now
	b.f.addLease(id, lease{lo: lo, hi: hi, attempt: attempt, lane: b.f.sweep.Lane(), since: now, detached: true})
	s.m.leases.adopt(b.node, b.lease, now)
	for _, rival := range b.rivals {
		s.revokeLease(b.f, rival)
	}
}

package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// handleNodeDeath requeues the leases of a lost node so that other nodes run its trials: it deletes
// the leases from the queue and leases unfinished trials again. It fences the running attempts;
// unless the node left, only until it returns with them. Trials of which a second run would do harm
// wait for the node, as long as it belongs to the cluster.
func (s *scheduler) handleNodeDeath(ctx context.Context, node grid.NodeID, l nodeLoss) {
	held := s.m.leases.heldBy(node)
	for _, f := range s.feeds {
		if !l.left && f.neverReplaces() {
			held = slices.DeleteFunc(held, func(id grid.LeaseID) bool { _, ok := f.leases[id]; return ok })
			continue
		}
		if err := s.fenceAttempts(ctx, f.sweep.ID, node, l); err != nil {
			s.m.log.Warn("attempts of a lost node could not be fenced yet", "node", node, "sweep", f.sweep.ID, "err", err)
			s.pendingFences[fenceKey{node, f.sweep.ID}] = l
		}
	}
	s.requeueLeases(ctx, held)
}

// fenceKey identifies attempts of a lost node that are still to be fenced.
type fenceKey struct {
	node  grid.NodeID
	sweep grid.SweepID
}

// retryFences fences attempts for which that has failed before. A node that is heard from again
// reports itself what it runs.
func (s *scheduler) retryFences(ctx context.Context) (failed error) {
	for of, l := range s.pendingFences {
		if _, ok := s.m.Sweep(of.sweep); ok && s.m.nodes.isGone(of.node) {
			if err := s.fenceAttempts(ctx, of.sweep, of.node, l); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		delete(s.pendingFences, of)
	}
	return failed
}

// neverReplaces reports whether trials of the sweep wait for their node, however long.
func (f *feed) neverReplaces() bool {
	return f.sweep.Task.NoReplace && f.sweep.State != grid.SweepCancelled
}

// requeueLeases deletes leases from the queue and makes what is missing leasable, even where the
// message of a lease can't be deleted: no node gets it any more.
func (s *scheduler) requeueLeases(ctx context.Context, held []grid.LeaseID) {
	feeds := s.feedsByLease()
	for _, id := range held {
		f := feeds[id]
		if f == nil {
			continue
		}
		if err := s.deleteLease(ctx, f, id); err != nil {
			s.m.log.Warn("lease that was taken back could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
		}
		f.requeueOneByOne(id)
		s.dropLease(f, id)
	}
}

// deleteLease deletes a lease from the queue, if it is there.
func (s *scheduler) deleteLease(ctx context.Context, f *feed, id grid.LeaseID) error {
	if f.leases[id].detached {
		return nil
	}
	return s.m.cfg.Store.Queue.Delete(ctx, id)
}

// fenceAttempts ends the running attempts of a sweep on a node that was lost.
func (s *scheduler) fenceAttempts(ctx context.Context, id grid.SweepID, node grid.NodeID, l nodeLoss) error {
	class := grid.ClassCrash
	if l.left {
		class = grid.ClassHalt
	}
	batch := &grid.Batch{V: grid.EventVersion, Sweep: id}
	now := time.Now().UnixMicro()
	for t, err := range s.m.cfg.History.Trials(ctx, id, history.Query{States: []grid.State{grid.Running}}) {
		if err != nil {
			return fmt.Errorf("find trials of %s that ran on node %s: %w", id, node, err)
		}
		if t.Node != node {
			continue
		}
		e := grid.Event{
			Kind: grid.Fenced, Index: t.Index, Attempt: t.Attempt, Run: t.Run, Time: now, Away: !l.left,
			Result: &grid.Result{Class: class, ExitCode: grid.NoExit, Reason: l.reason},
		}
		if crashes := t.Failures[grid.ClassCrash] + 1; class == grid.ClassCrash && crashes >= s.m.crashLimit() {
			e.Final, e.Result.Reason = true, s.crashLimitReason(ctx, id, &t, l.reason)
		}
		batch.Events = append(batch.Events, e)
	}
	if len(batch.Events) == 0 {
		return nil
	}
	seq, err := s.m.cfg.Store.Events.Publish(ctx, batch)
	if err != nil {
		return fmt.Errorf("fence attempts of %s on node %s: %w", id, node, err)
	}
	s.lastDecision = seq
	if f := s.feeds[id]; f != nil {
		for i := range batch.Events {
			f.awayTrials[batch.Events[i].Index] = true
		}
	}
	return nil
}

// crashLimitReason is the reason of a trial that is not retried because so many nodes have died
// under it.
func (s *scheduler) crashLimitReason(ctx context.Context, sweep grid.SweepID, t *grid.Trial, how string) string {
	id := grid.TrialID{Sweep: sweep, Index: t.Index}
	attempts, err := s.m.cfg.History.Attempts(ctx, id)
	if err != nil {
		s.m.log.Warn("earlier attempts of a trial could not be read", "trial", id, "err", err)
	}
	var before []string
	for _, a := range attempts {
		if a.Result.Class == grid.ClassCrash && !slices.Contains(before, string(a.Node)) {
			before = append(before, string(a.Node))
		}
	}
	if len(before) > 0 {
		how += ", as did " + strings.Join(before, " and ") + " before"
	}
	return fmt.Sprintf("%s; the trial will not be retried, because %d nodes died while they ran it. To run it again: mlfnode retry %s",
		how, t.Failures[grid.ClassCrash]+1, sweep)
}

// dropStaleLeases deletes leases from the queue that a node no longer knows, because its agent has
// started a new life. The reconciler finds them missing and leases them again once the node's last
// reports have been applied.
func (s *scheduler) dropStaleLeases(node grid.NodeID, held []grid.LeaseID) {
	ctx := context.Background() // calls of the store have their own timeout
	feeds := s.feedsByLease()
	for _, id := range held {
		f := feeds[id]
		if f == nil {
			continue
		}
		s.m.leases.clearHolder(id)
		if err := s.deleteLease(ctx, f, id); err != nil {
			s.m.log.Warn("lease of an agent's last life could not be deleted", "node", node, "lease", id, "err", err)
		}
	}
	s.reportProblem(ctx, reconciling, s.reconcile(ctx))
}

// restoreWithRetry calls restoreLeases until it succeeds: nothing can be decided before. It gives
// up where only a new start helps.
func (s *scheduler) restoreWithRetry(ctx context.Context) error {
	again := time.NewTicker(reconcileInterval)
	defer again.Stop()
	for {
		err := s.restoreLeases(ctx)
		if err == nil || history.IsDamage(err) {
			return err
		}
		s.reportProblem(ctx, reconciling, err)
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// restoreLeases takes over the leases that are in the queue when the master starts: other nodes may
// be working on them.
func (s *scheduler) restoreLeases(ctx context.Context) error {
	present, err := s.m.cfg.Store.Queue.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	bySweep := map[grid.SweepID][]jetstream.QueuedLease{}
	for _, l := range present {
		if _, ok := s.m.Sweep(l.Sweep); ok {
			bySweep[l.Sweep] = append(bySweep[l.Sweep], l)
			continue
		}
		if err := s.m.cfg.Store.Queue.Delete(ctx, l.ID); err != nil {
			return fmt.Errorf("delete a lease of a removed sweep: %w", err)
		}
	}
	for _, r := range s.m.Sweeps() {
		leases := bySweep[r.Sweep.ID]
		if s.feeds[r.Sweep.ID] != nil || len(leases) == 0 && !r.Sweep.Active() {
			continue
		}
		if err := s.openFeed(ctx, &r, leases); err != nil {
			return err
		}
	}
	s.m.leases.markLoaded()
	s.reportProblem(ctx, reconciling, nil)
	return nil
}

// expectAttempts assigns running trials, by what history knows, to the nodes where they run: those
// report with their first heartbeats whether that is still so. The queue may have lost their
// leases, or may grant them once more.
func (s *scheduler) expectAttempts(f *feed, open []grid.Trial) {
	now := time.Now()
	for i := range open {
		t := &open[i]
		if t.State != grid.Running {
			continue
		}
		s.m.nodes.expect(t.Node, now)
		over := f.leasesOver(t.Index, "")
		for _, id := range over {
			s.m.leases.assign(id, t.Node, now)
		}
		if len(over) > 0 {
			continue
		}
		id := placeholderLease(t.Run) // until the node reports it
		s.m.leases.add(id)
		s.m.leases.assign(id, t.Node, now)
		f.adoptLease(id, t.Index, t.Index+1, t.Attempt, now)
		f.assigned.Add(t.Index, t.Index+1)
	}
}

// placeholderLease names the lease of an attempt that goes on, while the ID of the lease is not
// known.
func placeholderLease(run string) grid.LeaseID { return grid.LeaseID(placeholderPrefix + run) }

const placeholderPrefix = "run "

func isPlaceholder(id grid.LeaseID) bool { return strings.HasPrefix(string(id), placeholderPrefix) }

// A node tells what it holds at once, and again twice a second. So a lease of which its holder says
// no more is not held any more after claimLimit, and one that was handed out is lost when nobody
// has said to hold it after idleLimit. What it runs if it is cut off just then goes on when it is
// back.
const (
	holderTimeout    = 10 * time.Second // A node reports what it holds at once, and again twice a second. So a lease that its holder no longer reports is not held any more after holderTimeout, and one that was granted is lost when no node has reported it after unclaimedTimeout. What a node runs that is disconnected just then goes on when it is back.
	unclaimedTimeout = 2 * time.Second
)

// reclaimAbandoned reports whether nobody works on a lease that was granted, because it was lost on
// its way to a node, or in the node. If so, it deletes the lease from the queue.
func (s *scheduler) reclaimAbandoned(ctx context.Context, f *feed, id grid.LeaseID, now time.Time) bool {
	l, c := f.leases[id], s.m.leases.get(id)
	switch {
	case s.m.cfg.Nodes == nil:
		return false
	case c.node != "":
		if now.Sub(c.lastHeartbeat) < holderTimeout || !s.m.nodes.isResponsive(c.node, now) {
			return false
		}
		s.m.leases.clearHolder(id)
	case l.detached:
		return true
	case now.Sub(l.since) < unclaimedTimeout || !s.m.cfg.Store.Queue.WasGranted(id):
		return false
	case l.grantedUnheld.IsZero():
		l.grantedUnheld = now
		f.leases[id] = l
		return false
	case now.Sub(l.grantedUnheld) < unclaimedTimeout:
		return false
	}
	if l.attempt > 1 && !l.elsewhere {
		delete(f.failedOn, l.lo) // the nodes that it avoids may be the only ones that can run it
	}
	s.m.log.Info("lease was handed out, and nobody holds it", "sweep", f.sweep.ID, "lease", id)
	if err := s.deleteLease(ctx, f, id); err != nil {
		s.m.log.Warn("lease that nobody holds could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
	}
	return true
}

// deleteOrphan deletes a lease that this master does not know: a node that takes it could not keep
// it.
func (s *scheduler) deleteOrphan(ctx context.Context, l *jetstream.QueuedLease) error {
	if s.m.cfg.Nodes == nil || l.Sweep == "" {
		return nil // from a newer version
	}
	return s.m.cfg.Store.Queue.DeleteStored(ctx, l)
}

package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// fencer requeues what lost nodes held, and excludes the attempts on them from giving the result.
type fencer struct {
	m       *Master
	s       *scheduler
	pending map[fenceKey]nodeLoss // fences that could not be stored yet
}

// handleNodeDeath requeues the leases of a lost node so that other nodes run its trials: it deletes
// the leases from the queue and leases unfinished trials again. It fences the running attempts;
// unless the node left, only until it returns with them. Trials of which a second run would do harm
// wait for the node, as long as it belongs to the cluster.
func (d *fencer) handleNodeDeath(ctx context.Context, node grid.NodeID, l nodeLoss) {
	held := d.m.leases.heldBy(node)
	for _, f := range d.s.feeds {
		waits := f.sweep.Task.NoReplace && f.sweep.State != grid.SweepCancelled
		if !l.left && waits {
			held = slices.DeleteFunc(held, func(id grid.LeaseID) bool { _, ok := f.leases[id]; return ok })
			continue
		}
		if err := d.fenceAttempts(ctx, f.sweep.ID, node, l); err != nil {
			d.m.log.Warn("attempts of a lost node could not be fenced yet",
				"node", node, "sweep", f.sweep.ID, "err", err)
			d.pending[fenceKey{node, f.sweep.ID}] = l
		}
	}
	feeds := d.s.feedsByLease()
	for _, id := range held {
		f := feeds[id]
		if f == nil {
			continue
		}
		if err := d.s.deleteLease(ctx, f, id); err != nil { // no node gets it any more even so
			d.m.log.Warn("requeued lease could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
		}
		f.requeueOneByOne(id)
		d.s.dropLease(f, id)
	}
}

// fenceKey identifies attempts of a lost node that are still to be fenced.
type fenceKey struct {
	node  grid.NodeID
	sweep grid.SweepID
}

// retryFences fences attempts for which that has failed before. A node that is heard from again
// reports itself what it runs.
func (d *fencer) retryFences(ctx context.Context) (failed error) {
	for of, l := range d.pending {
		known, there := d.m.nodes.get(of.node)
		if _, ok := d.m.Sweep(of.sweep); ok && (!there || known.dead) {
			if err := d.fenceAttempts(ctx, of.sweep, of.node, l); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		delete(d.pending, of)
	}
	return failed
}

// fenceAttempts ends the running attempts of a sweep on a node that was lost.
func (d *fencer) fenceAttempts(ctx context.Context, id grid.SweepID, node grid.NodeID, l nodeLoss) error {
	class := grid.ClassCrash
	if l.left {
		class = grid.ClassHalt
	}
	batch := &grid.Batch{V: grid.EventVersion, Sweep: id}
	now := time.Now().UnixMicro()
	for t, err := range d.m.cfg.History.Trials(ctx, id, history.Query{States: []grid.State{grid.Running}}) {
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
		if class == grid.ClassCrash && t.Failures[grid.ClassCrash]+1 >= d.m.settings().crashLimit {
			e.Final, e.Result.Reason = true, d.crashLimitReason(ctx, id, &t, l.reason)
		}
		batch.Events = append(batch.Events, e)
	}
	if len(batch.Events) == 0 {
		return nil
	}
	if err := d.s.publishDecision(ctx, batch); err != nil {
		return fmt.Errorf("fence attempts of %s on node %s: %w", id, node, err)
	}
	if f := d.s.feeds[id]; f != nil {
		for i := range batch.Events {
			f.awayTrials[batch.Events[i].Index] = true
		}
	}
	return nil
}

// crashLimitReason is the reason of a trial that is not retried because so many nodes have died
// under it.
func (d *fencer) crashLimitReason(ctx context.Context, sweep grid.SweepID, t *grid.Trial, how string) string {
	id := grid.TrialID{Sweep: sweep, Index: t.Index}
	attempts, err := d.m.cfg.History.Attempts(ctx, id)
	if err != nil {
		d.m.log.Warn("earlier attempts of a trial could not be read", "trial", id, "err", err)
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
	return fmt.Sprintf("%s; the trial will not be retried, because %d nodes died while they ran it. "+
		"To run it again: mlfnode retry %s", how, t.Failures[grid.ClassCrash]+1, sweep)
}

package master

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// bury takes back all that a dead node held: its running attempts are fenced, its leases leave the queue, and what they did
// not bring to an end is leased anew. What can't be stored now is taken back when the leases run out.
func (s *state) bury(ctx context.Context, node grid.NodeID, how string) {
	class := grid.ClassCrash
	if strings.HasSuffix(how, " left") {
		class = grid.ClassHalt
	}
	held := s.m.ledger.of(node)
	for _, f := range s.feeds {
		if _, err := s.fence(ctx, f, node, 0, f.count, class, how); err != nil {
			s.m.log.Warn("attempts of a dead node could not be fenced", "node", node, "sweep", f.sweep.ID, "err", err)
		}
	}
	s.takeBack(ctx, held)
}

// takeBack removes leases from the queue and makes what is missing ready to be leased.
func (s *state) takeBack(ctx context.Context, held []grid.LeaseID) {
	feeds := s.leases()
	for _, id := range held {
		f := feeds[id]
		if f == nil {
			continue
		}
		if err := s.m.cfg.Store.Queue.Delete(ctx, f.leases[id].seq); err != nil {
			s.m.log.Warn("lease could not be taken back and runs out by itself", "sweep", f.sweep.ID, "lease", id, "err", err)
			continue
		}
		f.suspect(id, time.Now())
		s.drop(f, id, time.Now())
	}
}

// fence ends the running attempts of a node among the trials [lo,hi) of a sweep, and gives their indexes.
func (s *state) fence(ctx context.Context, f *feed, node grid.NodeID, lo, hi int64, class grid.Class, how string) ([]int64, error) {
	batch := &grid.Batch{V: grid.EventVersion, Sweep: f.sweep.ID}
	now := time.Now().UnixMicro()
	for t, err := range s.m.cfg.History.Trials(ctx, f.sweep.ID, history.Query{States: []grid.State{grid.Running}}) {
		if err != nil {
			return nil, fmt.Errorf("find running trials: %w", err)
		}
		if t.Node != node || t.Index < lo || t.Index >= hi {
			continue
		}
		e := grid.Event{
			Kind: grid.Fenced, Index: t.Index, Attempt: t.Attempt, Run: t.Run, Time: now,
			Result: &grid.Result{Class: class, ExitCode: grid.NoExit, Reason: how},
		}
		if crashes := t.Failures[grid.ClassCrash] + 1; class == grid.ClassCrash && crashes >= s.m.crashLimit() {
			e.Final, e.Result.Reason = true, s.setAside(ctx, f, &t, how)
		}
		batch.Events = append(batch.Events, e)
	}
	if len(batch.Events) == 0 {
		return nil, nil
	}
	if _, err := s.m.cfg.Store.Events.Publish(ctx, batch); err != nil {
		return nil, fmt.Errorf("fence attempts: %w", err)
	}
	indexes := make([]int64, len(batch.Events))
	for i := range batch.Events {
		indexes[i] = batch.Events[i].Index
	}
	return indexes, nil
}

// setAside is the reason of a trial under which so many nodes have died that it runs no more.
func (s *state) setAside(ctx context.Context, f *feed, t *grid.Trial, how string) string {
	id := grid.TrialID{Sweep: f.sweep.ID, Index: t.Index}
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
	return fmt.Sprintf("%s; the trial is set aside, since nodes died under it %d times. Run it again with: mlfnode retry %s",
		how, t.Failures[grid.ClassCrash]+1, f.sweep.ID)
}

// void takes leases out of the queue of which a node knows nothing any more, because its agent has begun a new life. The reconciler
// finds them missing there, and leases them anew once the node's last reports have been followed.
func (s *state) void(node grid.NodeID, held []grid.LeaseID) {
	ctx := context.Background() // a call of the store bounds itself
	feeds := s.leases()
	for _, id := range held {
		f := feeds[id]
		if f == nil {
			continue
		}
		if err := s.m.cfg.Store.Queue.Delete(ctx, f.leases[id].seq); err != nil {
			s.m.log.Warn("lease of an agent's last life could not be deleted and runs out by itself", "node", node, "lease", id, "err", err)
		}
	}
	s.report(ctx, s.reconcile(ctx))
}

// pass fences the attempts of nodes whose leases have run out and gone to others.
func (s *state) pass(ctx context.Context) error {
	feeds := s.leases()
	for _, p := range s.m.ledger.passings() {
		f := feeds[p.lease]
		if f == nil {
			continue
		}
		l := f.leases[p.lease]
		how := fmt.Sprintf("its lease ran out, since node %s was not heard of; node %s has it now", p.from, p.to)
		s.m.log.Info("lease went to another node", "sweep", f.sweep.ID, "lease", p.lease, "from", p.from, "to", p.to)
		fenced, err := s.fence(ctx, f, p.from, l.lo, l.hi, grid.ClassLost, how)
		if err != nil {
			return err
		}
		for _, i := range fenced {
			f.passed[i] = true // the node that has the lease runs it already
		}
	}
	return nil
}

// restore takes over the leases that are in the queue when the master starts: other nodes may be working on them.
func (s *state) restore(ctx context.Context) error {
	present, err := s.m.cfg.Store.Queue.Present(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	bySweep := map[grid.SweepID][]jetstream.Queued{}
	for _, l := range present {
		if _, ok := s.m.Sweep(l.Sweep); ok {
			bySweep[l.Sweep] = append(bySweep[l.Sweep], l)
			continue
		}
		if err := s.m.cfg.Store.Queue.Delete(ctx, l.Seq); err != nil {
			return fmt.Errorf("delete a lease of a removed sweep: %w", err)
		}
	}
	for id, leases := range bySweep {
		r, _ := s.m.Sweep(id)
		if err := s.open(ctx, r.Sweep, leases); err != nil {
			return err
		}
		for _, l := range leases {
			if err := s.ensure(ctx, grid.Lane(l.Shape)); err != nil {
				return err
			}
		}
	}
	s.m.ledger.complete()
	return nil
}

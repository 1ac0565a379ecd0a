package master

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// Submit stores a new sweep and returns when its record is on disk. It answers a submission that
// was stored already, recognised by its token, with the stored sweep.
func (m *Master) Submit(ctx context.Context, s *api.Submit) (jetstream.Record, error) {
	if err := s.Task.CheckCommand(s.Space.Keys()); err != nil {
		return jetstream.Record{}, conflict(err.Error(), "")
	}
	if err := m.checkFits(ctx, s.Task.Resources.Initial()); err != nil {
		return jetstream.Record{}, err
	}
	if s.Task.Image != "" && m.cfg.CheckContainers != nil {
		if err := m.cfg.CheckContainers(ctx); err != nil {
			return jetstream.Record{}, conflict("the task runs in a container, and "+err.Error(), "start the engine, or see: mlfnode doctor")
		}
	}
	// One at a time: a submission that is sent again while the first is on its way to the disk is
	// the same sweep, and a bundle must not be removed between the check for it and the record that
	// names it.
	unlock, err := m.lockSubmissions(ctx)
	if err != nil {
		return jetstream.Record{}, err
	}
	defer unlock()
	if r, ok := m.findSubmitted(ctx, s.Token); ok {
		return r, nil
	}
	if err := m.checkBundle(ctx, s.Bundle); err != nil {
		return jetstream.Record{}, err
	}
	for {
		n, err := m.cfg.Store.Records.NextNumber(ctx, s.Project)
		if err != nil {
			return jetstream.Record{}, fmt.Errorf("number sweep of %s: %w", s.Project, err)
		}
		sweep := newSweepRecord(s, n)
		if err := sweep.SetSpace(s.Space); err != nil {
			return jetstream.Record{}, err
		}
		if m.cfg.Nodes != nil {
			sweep.Task.Retries = sweep.Task.Retries.InCluster()
		}
		sweep.Number = m.newestNumber() + 1
		rev, err := m.cfg.Store.Records.Create(ctx, sweep)
		if errors.Is(err, jetstream.ErrExists) {
			continue
		}
		if err != nil {
			if errors.Is(err, jetstream.ErrTooLarge) {
				return jetstream.Record{}, &api.Error{Status: http.StatusRequestEntityTooLarge, Msg: err.Error()}
			}
			m.recordUncertain(s.Token, sweep.ID)
			return jetstream.Record{}, fmt.Errorf("store sweep %s: %w", sweep.ID, err)
		}
		r := jetstream.Record{Sweep: sweep, Rev: rev}
		m.storeRecord(jetstream.Change{ID: sweep.ID, Record: r})
		return r, nil
	}
}

// checkBundle refuses a submission whose bundle is not stored.
func (m *Master) checkBundle(ctx context.Context, digest string) error {
	if digest == "" {
		return nil
	}
	ok, err := m.cfg.Store.Bundles.Has(ctx, digest)
	if err == nil && !ok {
		err = &api.Error{
			Status: http.StatusConflict, Code: api.CodeNoBundle, Msg: "the bundle " + digest + " is not stored", Hint: "submit again",
		}
	}
	return err
}

// checkFits refuses a task that no node could ever run. In a cluster a sweep may wait for nodes
// that are away.
func (m *Master) checkFits(ctx context.Context, r grid.Resources) error {
	if r.NeedsGPU() && m.cfg.AwaitDevices != nil {
		m.cfg.AwaitDevices(ctx)
	}
	if why := m.neverFits(r); why != "" {
		anywhere := r
		anywhere.Nodes = ""
		if r.Nodes != "" && m.neverFits(anywhere) == "" {
			return conflict("no node that the task names can run its trials: "+why, "mlfnode members lists the nodes with their labels")
		}
		return conflict("one trial of this task needs more than any node has: "+why, "lower `resources` in project.yaml")
	}
	return nil
}

func (m *Master) neverFits(r grid.Resources) string {
	if m.cfg.NeverFits == nil {
		return ""
	}
	return m.cfg.NeverFits(r)
}

// findSubmitted returns the sweep that was submitted with a token.
func (m *Master) findSubmitted(ctx context.Context, token string) (jetstream.Record, bool) {
	if token == "" {
		return jetstream.Record{}, false
	}
	for _, r := range m.Sweeps() {
		if r.Sweep.Token == token {
			return r, true
		}
	}
	// A record that failed to be stored may be stored after all, without the watcher having
	// delivered it yet.
	if id := m.uncertain[token]; id != "" {
		if r, err := m.cfg.Store.Records.Load(ctx, id); err == nil && r.Sweep.Token == token {
			m.storeRecord(jetstream.Change{ID: id, Record: r})
			return r, true
		}
	}
	return jetstream.Record{}, false
}

// maxUncertain bounds the submissions that are remembered because it is not known whether they were
// stored.
const maxUncertain = 1000

func (m *Master) recordUncertain(token string, id grid.SweepID) {
	if len(m.uncertain) >= maxUncertain {
		clear(m.uncertain)
	}
	m.uncertain[token] = id
}

func newSweepRecord(s *api.Submit, n int) *grid.Sweep {
	return &grid.Sweep{
		V: grid.RecordVersion, ID: grid.SweepID(fmt.Sprintf("%s-%d", s.Project, n)),
		Project: s.Project, Name: s.Name, Token: s.Token, Origin: s.Origin, Task: s.Task, Bundle: s.Bundle,
		State: grid.SweepRunning, Priority: s.Priority, MaxParallel: s.MaxParallel,
		Submitted: time.Now().UTC(), Environ: s.Environ, EnvironAdded: s.EnvironAdded,
	}
}

// Pause starts no further trial of the sweep; with halt, it kills the running ones, which run again
// after Resume. Trials of a task that declares a checkpoint save their state and stop in any case,
// since they lose nothing by it; with halt on a sweep that is paused already, they are killed while
// they save.
func (m *Master) Pause(ctx context.Context, id grid.SweepID, halt bool) (jetstream.Record, error) {
	return m.editSweep(ctx, id, func(s *grid.Sweep) error {
		switch s.State {
		case grid.SweepRunning, grid.SweepPaused:
			if s.State == grid.SweepRunning {
				s.Paused = time.Now().UTC()
				halt = halt && s.Task.Checkpoint == nil
			}
			s.State, s.Halt = grid.SweepPaused, s.Halt || halt
			return nil
		}
		return conflict(fmt.Sprintf("%s is %s and can't be paused", id, s.State), "")
	})
}

// Resume continues a paused sweep. A finished one stays as it is.
func (m *Master) Resume(ctx context.Context, id grid.SweepID) (jetstream.Record, error) {
	c, err := m.cfg.History.Counts(ctx, id)
	if err != nil {
		return jetstream.Record{}, fmt.Errorf("count trials of %s: %w", id, err)
	}
	return m.editSweep(ctx, id, func(s *grid.Sweep) error {
		switch s.State {
		case grid.SweepRunning, grid.SweepPaused:
			if s.State == grid.SweepPaused && s.Task.StopAfter > 0 {
				s.Accepted = c.Failed
			}
			s.State, s.Halt, s.Paused, s.Problem = grid.SweepRunning, false, time.Time{}, ""
		case grid.SweepCancelled:
			return conflict(fmt.Sprintf("%s is cancelled", id), fmt.Sprintf("run what is left of it with: mlfnode retry %s", id))
		}
		return nil
	})
}

// Cancel ends a sweep: running trials are stopped, the others never run. With save, trials of a
// task that declares a checkpoint first save their state, from which a retry continues.
func (m *Master) Cancel(ctx context.Context, id grid.SweepID, save bool) (jetstream.Record, error) {
	return m.editSweep(ctx, id, func(s *grid.Sweep) error {
		switch s.State {
		case grid.SweepFinished:
			return conflict(fmt.Sprintf("%s is finished already", id), "")
		case grid.SweepRunning, grid.SweepPaused:
			if save && s.Task.Checkpoint == nil {
				return conflict(fmt.Sprintf("the task of %s declares no checkpoint, so its trials can't save their state", id), "leave --save out")
			}
			s.State, s.Ended, s.Save, s.Cancelling = grid.SweepCancelled, time.Now().UTC(), save, nil
		}
		return nil
	})
}

// failSweep ends a sweep whose record asks for something impossible.
func (m *Master) failSweep(ctx context.Context, id grid.SweepID, why string) error {
	m.log.Error("sweep is cancelled", "sweep", id, "reason", why)
	_, err := m.editSweep(ctx, id, func(s *grid.Sweep) error {
		if s.Active() {
			s.State, s.Ended, s.Problem, s.Cancelling = grid.SweepCancelled, time.Now().UTC(), why, nil
		}
		return nil
	})
	return err
}

// Extend adds values to axes of the sweep, or points to its sample, and returns how many points
// that adds. It refuses lists of values that would turn the sweep into a long one.
func (m *Master) Extend(ctx context.Context, id grid.SweepID, q api.Extend) (jetstream.Record, int64, error) {
	c, err := m.cfg.History.Counts(ctx, id)
	if err != nil {
		return jetstream.Record{}, 0, fmt.Errorf("count trials of %s: %w", id, err)
	}
	var added int64
	r, err := m.editSweep(ctx, id, func(s *grid.Sweep) error {
		if s.State == grid.SweepCancelled {
			return conflict(fmt.Sprintf("%s is cancelled and can't be extended", id), "submit a new sweep")
		}
		before := s.Space.Count()
		extend := func() (space.Space, error) { return s.Space.Extend(q.Axes) }
		if q.Draw != 0 {
			if len(q.Axes) > 0 {
				return conflict("values can't be added to axes while points are added to the sample", "one after the other")
			}
			extend = func() (space.Space, error) { return s.Space.Draw(q.Draw) }
		}
		points, err := extend()
		if err != nil {
			return conflict(err.Error(), "")
		}
		added = points.Count() - before
		if err := setExtended(s, points, q); err != nil {
			return err
		}
		if s.State == grid.SweepFinished {
			s.State, s.Ended = grid.SweepRunning, time.Time{}
			if s.Task.StopAfter > 0 {
				s.Accepted = c.Failed
			}
		}
		return nil
	})
	return r, added, err
}

// setExtended gives a sweep its extended space. It never makes a sweep a long one: older nodes that
// run its trials could no longer read its record, and would follow no directive.
func setExtended(s *grid.Sweep, points space.Space, q api.Extend) error {
	if q.Draw != 0 { // the lists stay as they are
		s.Space = points
		return nil
	}
	wasLong := s.Long
	if err := s.SetSpace(points); err != nil {
		return err
	}
	if s.Long && !wasLong {
		return &api.Error{
			Status: http.StatusRequestEntityTooLarge, Msg: fmt.Sprintf("these values are too many to add to %s: its record would be too large", s.ID),
			Hint: "submit a new sweep; or use intervals in place of long lists, or keep the values in a file of the project and sweep over its lines, with $(sed -n {line}p FILE) in a command of sh -c",
		}
	}
	return nil
}

// Retry runs trials again that did not succeed: one (index ≥ 0) or all, failed ones only or
// cancelled ones too. It returns how many it reopened. A sweep that the master has paused
// continues. Retry waits for trials of a cancelled sweep that are still being stopped.
func (m *Master) Retry(ctx context.Context, id grid.SweepID, q api.Retry) (jetstream.Record, int64, error) {
	r, ok := m.Sweep(id)
	if !ok {
		return r, 0, notFound(id)
	}
	if q.Index >= 0 && r.Sweep.State == grid.SweepCancelled {
		return r, 0, conflict(fmt.Sprintf("%s is cancelled as a whole", id),
			fmt.Sprintf("run all that did not succeed with: mlfnode retry %s", id))
	}
	if r.Sweep.State == grid.SweepCancelled && !isDryRun(ctx) {
		if err := m.awaitDrained(ctx, id); err != nil {
			return r, 0, err
		}
	}
	trials := m.toReopen(ctx, id, q)
	if isDryRun(ctx) {
		n := int64(0)
		for _, err := range trials {
			if err != nil {
				return r, 0, err
			}
			n++
		}
		rest, err := m.countRevived(ctx, r.Sweep, q, n)
		return r, n + rest, err
	}
	now := time.Now()
	if q.Bundle != "" {
		var err error
		if trials, err = m.updateFiles(ctx, id, q.Bundle, trials, now); err != nil {
			return r, 0, err
		}
	}
	defer m.holdOpen(id)()
	o := &reopening{m: m, sweep: id, at: now.UnixMicro(), revive: r.Sweep.State == grid.SweepCancelled, whole: r.Sweep.Task.StopAfter > 0}
	if err := o.reopen(ctx, trials); err != nil {
		return r, 0, err
	}
	reopened := o.count
	if !revives(r.Sweep, q, reopened) {
		var err error
		if reopened, err = m.countUnfinished(ctx, r.Sweep); reopened == 0 || err != nil {
			return r, 0, err
		}
	}
	// The record is written in any case: the scheduler may be about to finish the sweep, since it
	// has not applied the events yet.
	r, err := o.resumeSweep(ctx)
	return r, reopened, err
}

// revives reports whether a retry that reopens trials continues a sweep, and with it the trials of
// a cancelled one that have never run.
func revives(s *grid.Sweep, q api.Retry, reopened int64) bool {
	return reopened > 0 || s.State == grid.SweepCancelled && !q.FailedOnly && q.Class == ""
}

// countRevived counts the trials that a retry lets run without reopening them.
func (m *Master) countRevived(ctx context.Context, s *grid.Sweep, q api.Retry, reopened int64) (int64, error) {
	if s.State != grid.SweepCancelled || !revives(s, q, reopened) {
		return m.countUnfinished(ctx, s)
	}
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return 0, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	return max(0, s.Space.Count()-c.Done()), nil
}

// countUnfinished counts the trials of a finished sweep that have no result. There are none, unless
// an earlier version finished the sweep during a retry.
func (m *Master) countUnfinished(ctx context.Context, s *grid.Sweep) (int64, error) {
	if s.State != grid.SweepFinished {
		return 0, nil
	}
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return 0, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	return max(0, s.Space.Count()-c.Done()), nil
}

// updateFiles gives trials newer files, and returns the trials. The update is stored before they
// are reopened, so that no later attempt runs the older files.
func (m *Master) updateFiles(ctx context.Context, id grid.SweepID, bundle string, trials iter.Seq2[int64, error], now time.Time) (iter.Seq2[int64, error], error) {
	var all ranges.Set
	for i, err := range trials {
		if err != nil {
			return nil, err
		}
		all.Add(i, i+1)
	}
	same := func(yield func(int64, error) bool) {
		for r := range all.All() {
			for i := r.Lo; i < r.Hi; i++ {
				if !yield(i, nil) {
					return
				}
			}
		}
	}
	if all.Count() == 0 {
		return same, nil
	}
	return same, m.storeUpdate(ctx, id, grid.NewUpdate(bundle, now, &all))
}

func (m *Master) storeUpdate(ctx context.Context, id grid.SweepID, u grid.Update) error {
	if len(u.Trials) > grid.MaxUpdateRanges {
		return conflict(fmt.Sprintf("the trials to update lie in %d places of %s, and %d is the most", len(u.Trials), id, grid.MaxUpdateRanges),
			"start a new sweep with the changed files")
	}
	unlock, err := m.lockSubmissions(ctx) // a bundle must not be removed between the check for it and the record that names it
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.checkBundle(ctx, u.Bundle); err != nil {
		return err
	}
	_, err = m.editSweep(ctx, id, func(s *grid.Sweep) error {
		if len(s.Updates) >= grid.MaxUpdates {
			return conflict(fmt.Sprintf("%s has been updated %d times, and that is the most", id, len(s.Updates)), "start a new sweep with the changed files")
		}
		s.Updates = append(slices.Clone(s.Updates), u)
		return nil
	})
	return err
}

// toReopen yields the trials that a retry applies to: those that have ended, by what history says
// now. It leaves out trials that fail while they are read, which happens when others of them run
// again already; it recognises them by the nodes' clocks alone.
func (m *Master) toReopen(ctx context.Context, id grid.SweepID, q api.Retry) iter.Seq2[int64, error] {
	wanted := history.Query{States: []grid.State{grid.Failed, grid.Cancelled}}
	if q.FailedOnly {
		wanted.States = wanted.States[:1]
	}
	if q.Index >= 0 {
		wanted.From, wanted.Limit = q.Index, 1
	}
	before, err := m.cfg.History.Counts(ctx, id)
	return func(yield func(int64, error) bool) {
		if err != nil {
			yield(0, fmt.Errorf("count trials of %s: %w", id, err))
			return
		}
		for t, err := range m.cfg.History.Trials(ctx, id, wanted) {
			if err != nil {
				yield(0, fmt.Errorf("find trials of %s to run again: %w", id, err))
				return
			}
			if q.Index < 0 && q.Class == "" && t.Result.Class == grid.ClassStopped {
				continue // it would do no better now
			}
			if t.Ended > before.Ended {
				continue
			}
			if (q.Index < 0 || q.Index == t.Index) && (q.Class == "" || q.Class == t.Result.Class) && !yield(t.Index, nil) {
				return
			}
		}
	}
}

// finish marks a sweep as finished if it still has the size that was found complete, by all events
// up to followed, and no trial of it was reopened after that.
func (m *Master) finish(ctx context.Context, id grid.SweepID, count int64, followed uint64) error {
	_, err := m.editSweep(ctx, id, func(s *grid.Sweep) error {
		if s.State == grid.SweepRunning && s.Space.Count() == count && s.Reopened <= followed && !m.isHeldOpen(id) {
			s.State, s.Ended, s.Cancelling = grid.SweepFinished, time.Now().UTC(), nil
		}
		return nil
	})
	return err
}

type dryRunKey struct{}

// DryRun returns a context for actions that check and count what they would do, and do nothing.
func DryRun(ctx context.Context) context.Context { return context.WithValue(ctx, dryRunKey{}, true) }

func isDryRun(ctx context.Context) bool { return ctx.Value(dryRunKey{}) != nil }

// editSweep updates a record by compare-and-swap: edit sees a fresh copy on each try until no other
// writer was in between. When it returns, the new record is on disk.
func (m *Master) editSweep(ctx context.Context, id grid.SweepID, edit func(*grid.Sweep) error) (jetstream.Record, error) {
	return m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		before := *r.Sweep
		err := edit(r.Sweep)
		return !sameSweep(&before, r.Sweep), err
	})
}

// editRecord is editSweep for the whole record; edit reports whether it has changed anything.
func (m *Master) editRecord(ctx context.Context, id grid.SweepID, edit func(*jetstream.Record) (bool, error)) (jetstream.Record, error) {
	for {
		r, err := m.cfg.Store.Records.Load(ctx, id)
		if errors.Is(err, jetstream.ErrNotFound) {
			return r, notFound(id)
		}
		if err != nil {
			return r, fmt.Errorf("load sweep %s: %w", id, err)
		}
		if r.Sweep.Removing {
			return r, conflict(fmt.Sprintf("%s is being removed", id), "")
		}
		if changed, err := edit(&r); err != nil || !changed || isDryRun(ctx) {
			return r, err
		}
		r.Rev, err = m.cfg.Store.Records.Update(ctx, &r)
		if errors.Is(err, jetstream.ErrConflict) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("store sweep %s: %w", id, err)
		}
		m.storeRecord(jetstream.Change{ID: id, Record: r})
		return r, nil
	}
}

// sameSweep reports whether an edit left everything that can change as it was.
func sameSweep(a, b *grid.Sweep) bool {
	return a.State == b.State && a.Pinned == b.Pinned && a.Halt == b.Halt && a.Priority == b.Priority && a.Reopened == b.Reopened && a.Removing == b.Removing && len(a.Updates) == len(b.Updates) && a.Space.Count() == b.Space.Count()
}

func notFound(id grid.SweepID) error {
	return &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no sweep %q", id), Hint: "list them with: mlfnode sweeps"}
}

func conflict(msg, hint string) error {
	return &api.Error{Status: http.StatusConflict, Msg: msg, Hint: hint}
}

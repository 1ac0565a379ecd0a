package history

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// Fold applies batches, in stream order, in one transaction with the sequence of the last one, and
// returns what changed. It skips batches that have been applied already, and those of a sweep
// without a policy: it has been removed. After an error nothing is applied, and the same batches
// may be folded again.
func (d *DB) Fold(
	ctx context.Context, stored []Stored, policy func(grid.SweepID) (Policy, bool),
) ([]Transition, error) {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.stale {
		if err := d.load(); err != nil {
			return nil, fmt.Errorf("load history again: %w", d.markDamage(err))
		}
	}
	events := 0
	for _, s := range stored {
		if s.Batch != nil {
			events += len(s.Batch.Events)
		}
	}
	f := &fold{d: d, policy: policy, applied: d.applied, sweeps: map[grid.SweepID]*sweepFold{},
		changed: make([]Transition, 0, events)}
	err := d.w.transaction(func() error { return f.foldAll(stored) })
	d.blocks.transactionEnded(func() {
		if err == nil {
			f.publish()
		}
	})
	if err != nil {
		d.reload()
		return nil, fmt.Errorf("fold events: %w", d.markDamage(err))
	}
	return f.changed, nil
}

// fold is one transaction. Trials are loaded when an event first touches them, changed in memory,
// and stored at the end.
type fold struct {
	d       *DB
	policy  func(grid.SweepID) (Policy, bool)
	applied uint64
	sweeps  map[grid.SweepID]*sweepFold
	changed []Transition

	values   []driver.Value
	attempts []driver.Value // of attempts that are not stored yet
}

// sweepFold is one sweep in a fold. A nil sweep is skipped.
type sweepFold struct {
	f            *fold // the transaction
	sweep        *sweepSummary
	policy       Policy
	trials       map[int64]*trialInFold
	dirty        []*trialInFold
	changed      bool // something was stored
	spare        []trialInFold
	dirtyBitmaps []int64 // of trials that are new
}

// trialInFold is one trial in a fold.
type trialInFold struct {
	trial  grid.Trial
	stored bool // it is counted, and has a row or will have one
	dirty  bool
	again  bool      // see isAgain
	first  *Attempt  // the attempt in the earlier columns of its row
	run    [1]string // room for Runs, so that a trial with one attempt costs no allocation
}

// spareTrials is how many trials are allocated at a time.
const spareTrials = 64

func (f *fold) foldAll(stored []Stored) error {
	for _, s := range stored {
		if s.Seq <= f.applied {
			continue
		}
		f.applied = s.Seq
		if s.Batch == nil || len(s.Batch.Events) == 0 {
			continue
		}
		if err := f.foldBatch(s.Batch); err != nil {
			return fmt.Errorf("batch %d of %s: %w", s.Seq, s.Batch.Sweep, err)
		}
	}
	return f.flush()
}

// flush stores what has changed.
func (f *fold) flush() error {
	for id, g := range f.sweeps {
		if err := g.storeSweep(); err != nil {
			return fmt.Errorf("store trials of %s: %w", id, err)
		}
	}
	if err := f.flushAttempts(); err != nil {
		return fmt.Errorf("store attempts: %w", err)
	}
	return f.d.w.run(setApplied, int64(f.applied))
}

func (f *fold) foldBatch(b *grid.Batch) error {
	g, err := f.sweepOf(b.Sweep)
	if err != nil || g.sweep == nil {
		return err
	}
	if err := f.d.numberNode(b.Node); err != nil {
		return fmt.Errorf("store node %s: %w", b.Node, err)
	}
	isRange := func(e grid.Event) bool { return e.Kind == grid.ReopenedRange }
	for events := b.Events; len(events) > 0; {
		if isRange(events[0]) {
			if err := g.reopenRange(&events[0]); err != nil {
				return err
			}
			events = events[1:]
			continue
		}
		n := slices.IndexFunc(events, isRange)
		if n < 0 {
			n = len(events)
		}
		if err := g.readKnownTrials(events[:n]); err != nil {
			return err
		}
		for i := range events[:n] {
			if err := g.foldEvent(b.Node, &events[i]); err != nil {
				return err
			}
		}
		events = events[n:]
	}
	return nil
}

// sweepOf returns the sweep's part of the fold.
func (f *fold) sweepOf(id grid.SweepID) (*sweepFold, error) {
	if g := f.sweeps[id]; g != nil {
		return g, nil
	}
	g := &sweepFold{f: f, trials: map[int64]*trialInFold{}}
	f.sweeps[id] = g
	policy, ok := f.policy(id)
	if !ok {
		return g, nil
	}
	g.policy = policy
	if known := f.d.sweeps[id]; known != nil {
		g.sweep = known.clone()
		return g, nil
	}
	number, err := f.d.w.integer("SELECT coalesce(max(number), 0) + 1 FROM sweep")
	if err != nil {
		return nil, fmt.Errorf("number sweep: %w", err)
	}
	g.sweep = &sweepSummary{ID: id, Number: number, causes: newCauseTable()}
	return g, f.d.w.storeSummary(g.sweep)
}

// numberNode gives a node its number. Readers may see the number before the transaction ends, but
// no row with it.
func (x *index) numberNode(node grid.NodeID) error {
	if x.numbers[node] > 0 {
		return nil
	}
	number := int64(len(x.nodes) + 1)
	if err := x.w.run(addNode, number, string(node)); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nodes = append(x.nodes, node)
	x.numbers[node] = number
	return nil
}

func (g *sweepFold) foldEvent(node grid.NodeID, e *grid.Event) error {
	if e.Kind == grid.Released {
		return nil
	}
	if e.Index < 0 || e.Index > maxIndex || (g.policy.Count > 0 && e.Index >= g.policy.Count) {
		if g.f.d.isFirstStranger(g.sweep.ID) {
			g.f.d.log.Warn("skipping events of trials that the sweep does not have",
				"sweep", g.sweep.ID, "trial", e.Index,
				"trials", g.policy.Count, "node", node)
		}
		return nil
	}
	r, err := g.trialOf(e)
	if err != nil {
		return err
	}
	t := &r.trial
	before := *t
	change := t.Apply(g.policy.Retries, node, e)
	if change == grid.Ignored && t.Attempts == before.Attempts {
		return nil
	}
	if r.stored {
		g.sweep.Counts.add(&before, -1)
	} else {
		g.sweep.known.Add(t.Index, t.Index+1)
		g.markBitmap(t.Index)
		g.sweep.Base = cmp.Or(g.sweep.Base, e.Time)
		r.stored = true
	}
	g.sweep.Counts.add(t, 1)
	if !r.dirty {
		r.dirty = true
		g.dirty = append(g.dirty, r)
		g.sweep.overlay.covered.Remove(t.Index, t.Index+1)
		if r.first != nil {
			if err := g.f.storeAttempt(rowID(g.sweep.Number, t.Index), r.first); err != nil {
				return err
			}
		}
	}
	if change == grid.Reopen {
		if err := g.sweep.overlay.remove(g.f.d.w, g.sweep.Number,
			ranges.Range{Lo: t.Index, Hi: t.Index + 1}); err != nil {
			return err
		}
	}
	if err := g.recordAttempt(&before, r, change, node, e); err != nil {
		return err
	}
	g.f.recordTransition(g, t, change)
	return nil
}

// recordTransition updates the sweep's summary and adds what the caller needs to know of a change.
func (f *fold) recordTransition(g *sweepFold, t *grid.Trial, change grid.Change) {
	switch change {
	case grid.Progress:
		g.sweep.addNames(t.Result.Metrics)
		return
	case grid.Began, grid.Done, grid.Retry, grid.Reconnect:
		g.sweep.Counts.extendSpan(t)
		if change == grid.Done || change == grid.Retry {
			g.sweep.addClass(t.Result.Class)
			g.sweep.causes.record(t)
		}
		g.sweep.addNames(t.Result.Metrics)
	case grid.Reopen:
		f.changed = addReopened(f.changed, g.sweep.ID, ranges.Range{Lo: t.Index, Hi: t.Index + 1}, t.Attempts)
		return
	default:
		return
	}
	changed := Transition{
		Sweep: g.sweep.ID, Index: t.Index, Change: change, State: t.State, Attempts: t.Attempts,
		Node: t.Node, Snapshot: t.Result.Snapshot, Class: t.Result.Class, Started: t.Result.Started, Ended: t.Ended,
	}
	if change == grid.Done && g.policy.Stop != "" {
		changed.Curve = t.Result.Curves[g.policy.Stop]
	}
	if change == grid.Retry {
		changed.Failures = maps.Clone(t.Failures)
	}
	if gpu := t.Result.Usage.GPU; (change == grid.Retry || change == grid.Done) && len(gpu) > 0 && gpu[0].Total > 0 {
		result := t.Result
		result.Curves = nil
		changed.Measured = &result
	}
	f.changed = append(f.changed, changed)
}

// trialOf returns the trial of an event. Most have no row yet, which the known ranges say without a
// query.
func (g *sweepFold) trialOf(e *grid.Event) (*trialInFold, error) {
	index := e.Index
	if g.isAgain(e) {
		r := g.newTrial()
		r.trial = grid.Trial{
			Index: index, State: grid.Pending, Attempts: 1, Floor: 1, Runs: r.run[:0],
			Retried: g.sweep.overlay.at(index).time,
		}
		r.stored, r.again = true, true
		g.trials[index] = r
		return r, nil
	}
	if r := g.trials[index]; r != nil && r.again { // it lacks the run of the first attempt
		if err := g.storeTrials(); err != nil {
			return nil, err
		}
		clear(g.trials)
	} else if r != nil {
		return r, nil
	}
	if g.sweep.known.Has(index) {
		if err := g.readTrials(ranges.Range{Lo: index, Hi: index + 1}); err != nil {
			return nil, err
		}
		if r := g.trials[index]; r != nil {
			return r, nil
		}
	}
	r := g.newTrial()
	r.trial.Index, r.trial.Runs = index, r.run[:0]
	g.trials[index] = r
	return r, nil
}

// isAgain reports whether an event ends the second attempt of a trial whose row the overlay covers.
// The row need not be read: it says nothing about the new attempt, and the statements again keep
// what it says about the first one. A run has one number, so this one has not been reported before.
func (g *sweepFold) isAgain(e *grid.Event) bool {
	return e.Kind == grid.Finished && e.Result != nil && e.Attempt > 1 && !g.sweep.Curved &&
		g.sweep.overlay.covered.Has(e.Index) && g.sweep.overlay.at(e.Index).attempts == 1
}

// newTrial returns an empty trial.
func (g *sweepFold) newTrial() *trialInFold {
	if len(g.spare) == 0 {
		g.spare = make([]trialInFold, spareTrials)
	}
	r := &g.spare[0]
	g.spare = g.spare[1:]
	return r
}

// readTrials reads the rows of trials, as far as they have any.
func (g *sweepFold) readTrials(trials ranges.Range) error {
	rows, err := g.f.d.w.query(findTrials, rowID(g.sweep.Number, trials.Lo), rowID(g.sweep.Number, trials.Hi-1))
	var again []*trialInFold
	if err == nil {
		err = eachRow(rows, func(v []driver.Value) error {
			t, err := g.f.d.decodeTrial(v, &g.sweep.overlay)
			if err != nil || g.trials[t.Index] != nil {
				return err
			}
			r := g.newTrial()
			r.trial, r.stored = t, true
			g.trials[t.Index] = r
			if v[trialColumnCount] != nil {
				again = append(again, r)
			}
			return nil
		})
	}
	for _, r := range again {
		if err == nil {
			err = g.f.readFirst(g, r)
		}
	}
	if err != nil {
		return fmt.Errorf("load trials %d to %d: %w", trials.Lo, trials.Hi-1, err)
	}
	return nil
}

// maxReadGap is how far apart trials may be whose rows are read together: a row that is not needed
// costs less than another query.
const maxReadGap = 3

// readKnownTrials reads the rows of all trials that events are about, neighbours together: all
// trials of a retry have a row.
func (g *sweepFold) readKnownTrials(events []grid.Event) error {
	var known []int64
	for i := range events {
		if e := &events[i]; e.Kind != grid.Released && g.sweep.known.Has(e.Index) &&
			g.trials[e.Index] == nil && !g.isAgain(e) {
			known = append(known, e.Index)
		}
	}
	slices.Sort(known)
	for len(known) > 0 {
		n := 1
		for n < len(known) && known[n]-known[n-1] <= maxReadGap {
			n++
		}
		if err := g.readTrials(ranges.Range{Lo: known[0], Hi: known[n-1] + 1}); err != nil {
			return err
		}
		known = known[n:]
	}
	return nil
}

// storeSweep writes the trials that have changed, and the summary of their sweep.
func (g *sweepFold) storeSweep() error {
	if err := g.storeTrials(); err != nil || !g.changed {
		return err
	}
	if err := g.sweep.overlay.dropUnused(g.f.d.w, g.sweep.Number); err != nil {
		return err
	}
	if err := g.sweep.causes.store(g.f.d.w, g.sweep.Number); err != nil {
		return err
	}
	if err := g.f.d.w.storeKnown(g.sweep, g.dirtyBitmaps); err != nil {
		return err
	}
	g.sweep.Version++
	return g.f.d.w.storeSummary(g.sweep)
}

// storeTrials writes the trials that have changed, in order of index.
func (g *sweepFold) storeTrials() error {
	if len(g.dirty) == 0 {
		return nil
	}
	g.changed = true
	slices.SortFunc(g.dirty, func(a, b *trialInFold) int { return int(a.trial.Index - b.trial.Index) })
	if err := g.updateBlocks(); err != nil {
		return err
	}
	var again, others []*trialInFold
	for _, r := range g.dirty {
		if r.again {
			again = append(again, r)
		} else {
			others = append(others, r)
		}
	}
	if err := g.f.insert(g, &g.f.d.w.again, again); err != nil {
		return err
	}
	if err := g.f.insert(g, &g.f.d.w.insert, others); err != nil {
		return err
	}
	for _, r := range g.dirty {
		if err := g.f.storeCurves(g, r.trial.Index, "", r.trial.Result.Curves,
			r.trial.State != grid.Running); err != nil {
			return err
		}
	}
	g.dirty = g.dirty[:0]
	return nil
}

// insert stores trials with statements for insertRows of them each.
func (f *fold) insert(g *sweepFold, statements *[len(insertRows)]driver.Stmt, trials []*trialInFold) (err error) {
	for i, n := range insertRows {
		for ; len(trials) >= n; trials = trials[n:] {
			f.values = f.values[:0]
			for _, r := range trials[:n] {
				if f.values, err = f.d.rowValues(f.values, g.sweep.Number, &r.trial, g.policy.Metric); err != nil {
					return err
				}
			}
			if err := f.d.w.exec(statements[i], f.values...); err != nil {
				return err
			}
		}
	}
	return nil
}

// publish makes the result of a committed fold visible in memory.
func (f *fold) publish() {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.applied = f.applied
	for id, g := range f.sweeps {
		if g.sweep != nil {
			f.d.sweeps[id] = g.sweep
		}
	}
}

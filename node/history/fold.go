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

// Fold applies batches, in stream order, in one transaction with the sequence of the last one, and returns what changed.
// Batches that have been applied already are skipped, and so are those of a sweep for which policy knows nothing: it has been
// removed. After an error nothing of it is applied, and the same batches may be folded again.
func (d *DB) Fold(ctx context.Context, stored []Stored, policy func(grid.SweepID) (Policy, bool)) ([]Transition, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.stale {
		if err := d.load(); err != nil {
			return nil, fmt.Errorf("load history again: %w", d.check(err))
		}
	}
	events := 0
	for _, s := range stored {
		if s.Batch != nil {
			events += len(s.Batch.Events)
		}
	}
	f := &fold{d: d, policy: policy, applied: d.applied, sweeps: map[grid.SweepID]*folding{}, changed: make([]Transition, 0, events)}
	err := d.w.transaction(func() error { return f.run(stored) })
	d.blocks.forget()
	if err != nil {
		d.undo()
		return nil, fmt.Errorf("fold events: %w", d.check(err))
	}
	f.publish()
	return f.changed, nil
}

// fold is one transaction. Trials are loaded when an event first touches them, changed in memory, and stored at the end.
type fold struct {
	d       *DB
	policy  func(grid.SweepID) (Policy, bool)
	applied uint64
	sweeps  map[grid.SweepID]*folding
	changed []Transition
	values  []driver.Value
}

// folding is one sweep in a fold. A nil sweep is one that is skipped.
type folding struct {
	sweep  *sweep
	policy Policy
	rows   map[int64]*row
	dirty  []*row
	spare  []row
	chunks []int64 // of trials that are new
}

// row is one trial in a fold.
type row struct {
	trial  grid.Trial
	stored bool // it is counted, and has a row or will have one
	dirty  bool
	run    [1]string // room for Runs, so that a trial with one attempt costs no allocation
}

// spareRows is how many rows are allocated at a time.
const spareRows = 64

func (f *fold) run(stored []Stored) error {
	for _, s := range stored {
		if s.Seq <= f.applied {
			continue
		}
		f.applied = s.Seq
		if s.Batch == nil || len(s.Batch.Events) == 0 {
			continue
		}
		if err := f.batch(s.Batch); err != nil {
			return fmt.Errorf("batch %d of %s: %w", s.Seq, s.Batch.Sweep, err)
		}
	}
	return f.flush()
}

// flush stores what has changed.
func (f *fold) flush() error {
	for id, g := range f.sweeps {
		if err := f.store(g); err != nil {
			return fmt.Errorf("store trials of %s: %w", id, err)
		}
	}
	return f.d.w.exec(f.d.w.applied, int64(f.applied))
}

func (f *fold) batch(b *grid.Batch) error {
	g, err := f.open(b.Sweep)
	if err != nil || g.sweep == nil {
		return err
	}
	if err := f.d.meet(b.Node); err != nil {
		return fmt.Errorf("store node %s: %w", b.Node, err)
	}
	if err := f.loadKnown(g, b); err != nil {
		return err
	}
	for i := range b.Events {
		if err := f.event(g, b.Node, &b.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

// open gives the sweep's part of the fold.
func (f *fold) open(id grid.SweepID) (*folding, error) {
	if g := f.sweeps[id]; g != nil {
		return g, nil
	}
	g := &folding{rows: map[int64]*row{}}
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
	g.sweep = &sweep{ID: id, Number: number, causes: newCauses()}
	return g, f.d.w.save(g.sweep)
}

// meet gives a node its number. Readers may see the number before the transaction ends, but no row that has it.
func (d *DB) meet(node grid.NodeID) error {
	if d.numbers[node] > 0 {
		return nil
	}
	number := int64(len(d.nodes) + 1)
	if err := d.w.exec(d.w.node, number, string(node)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes = append(d.nodes, node)
	d.numbers[node] = number
	return nil
}

func (f *fold) event(g *folding, node grid.NodeID, e *grid.Event) error {
	if e.Kind == grid.Released {
		return nil
	}
	if e.Index < 0 || e.Index > maxIndex || (g.policy.Count > 0 && e.Index >= g.policy.Count) {
		if f.d.strange(g.sweep.ID) {
			f.d.log.Warn("events of trials that the sweep does not have are skipped", "sweep", g.sweep.ID, "trial", e.Index,
				"trials", g.policy.Count, "node", node)
		}
		return nil
	}
	r, err := f.load(g, e.Index)
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
		g.touch(t.Index)
		g.sweep.Base = cmp.Or(g.sweep.Base, e.Time)
		r.stored = true
	}
	g.sweep.Counts.add(t, 1)
	if !r.dirty {
		r.dirty = true
		g.dirty = append(g.dirty, r)
	}
	if err := f.remember(g, &before, r, change, node, e); err != nil {
		return err
	}
	f.note(g, t, change)
	return nil
}

// strange reports whether it is the first time in this life that a sweep has an event about a trial that it does not have: one line
// of log is enough for each.
func (d *DB) strange(id grid.SweepID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told[id] || len(d.told) >= maxTold {
		return false
	}
	if d.told == nil {
		d.told = map[grid.SweepID]bool{}
	}
	d.told[id] = true
	return true
}

// maxTold bounds the sweeps that are remembered for that.
const maxTold = 10_000

// note follows what a change means for the sweep and for the caller.
func (f *fold) note(g *folding, t *grid.Trial, change grid.Change) {
	switch change {
	case grid.Progress:
		g.sweep.name(t.Result.Metrics)
		return
	case grid.Began, grid.Done, grid.Retry, grid.Reconnect:
		g.sweep.Counts.span(t)
		if change == grid.Done || change == grid.Retry {
			g.sweep.classify(t.Result.Class)
			g.sweep.causes.count(t)
		}
		g.sweep.name(t.Result.Metrics)
	case grid.Reopen:
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

// load finds a trial. Most have no row yet, which the known ranges tell without asking the file.
func (f *fold) load(g *folding, index int64) (*row, error) {
	if r := g.rows[index]; r != nil {
		return r, nil
	}
	if g.sweep.known.Has(index) {
		if err := f.find(g, ranges.Range{Lo: index, Hi: index + 1}); err != nil {
			return nil, err
		}
		if r := g.rows[index]; r != nil {
			return r, nil
		}
	}
	r := g.row()
	r.trial.Index, r.trial.Runs = index, r.run[:0]
	g.rows[index] = r
	return r, nil
}

// row gives an empty one.
func (g *folding) row() *row {
	if len(g.spare) == 0 {
		g.spare = make([]row, spareRows)
	}
	r := &g.spare[0]
	g.spare = g.spare[1:]
	return r
}

// find reads the rows of trials, as far as they have any.
func (f *fold) find(g *folding, trials ranges.Range) error {
	rows, err := f.d.w.query(f.d.w.find, rowID(g.sweep.Number, trials.Lo), rowID(g.sweep.Number, trials.Hi-1))
	if err == nil {
		err = drain(rows, func(v []driver.Value) error {
			t, err := f.d.trial(v)
			if err != nil || g.rows[t.Index] != nil {
				return err
			}
			r := g.row()
			r.trial, r.stored = t, true
			g.rows[t.Index] = r
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("load trials %d to %d: %w", trials.Lo, trials.Hi-1, err)
	}
	return nil
}

// nearby is how far trials may lie apart whose rows are read together: a row that is not needed costs less than another query.
const nearby = 3

// loadKnown reads the rows of all trials that a batch is about, those that lie side by side together: all of a retry have one.
func (f *fold) loadKnown(g *folding, b *grid.Batch) error {
	var known []int64
	for i := range b.Events {
		if e := &b.Events[i]; e.Kind != grid.Released && g.sweep.known.Has(e.Index) && g.rows[e.Index] == nil {
			known = append(known, e.Index)
		}
	}
	slices.Sort(known)
	for len(known) > 0 {
		n := 1
		for n < len(known) && known[n]-known[n-1] <= nearby {
			n++
		}
		if err := f.find(g, ranges.Range{Lo: known[0], Hi: known[n-1] + 1}); err != nil {
			return err
		}
		known = known[n:]
	}
	return nil
}

// store writes the trials that have changed, in order of index, and the summary of their sweep.
func (f *fold) store(g *folding) error {
	if len(g.dirty) == 0 {
		return nil
	}
	slices.SortFunc(g.dirty, func(a, b *row) int { return int(a.trial.Index - b.trial.Index) })
	if err := f.bound(g); err != nil {
		return err
	}
	rest := g.dirty
	for i, n := range insertRows {
		for len(rest) >= n {
			if err := f.insert(g, f.d.w.insert[i], rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	for _, r := range g.dirty {
		if err := f.putCurves(g, r.trial.Index, "", r.trial.Result.Curves, r.trial.State != grid.Running); err != nil {
			return err
		}
	}
	if err := g.sweep.causes.save(f.d.w, g.sweep.Number); err != nil {
		return err
	}
	if err := f.d.w.saveKnown(g.sweep, g.chunks); err != nil {
		return err
	}
	g.sweep.Version++
	return f.d.w.save(g.sweep)
}

func (f *fold) insert(g *folding, stmt driver.Stmt, rows []*row) (err error) {
	f.values = f.values[:0]
	for _, r := range rows {
		if f.values, err = f.d.values(f.values, g.sweep.Number, &r.trial, g.policy.Metric); err != nil {
			return err
		}
	}
	return f.d.w.exec(stmt, f.values...)
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

package history

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"mlfnode/grid"
)

// Curves of attempts are kept apart from the rows of trials, which every fold rewrites. The run of
// a curve is "" as long as it belongs to the attempt that the trial's row describes.

// Curves of attempts are kept apart from the rows of trials, which every fold rewrites. The run of
// a curve is "" as long as it belongs to the attempt that the trial's row describes.
const curveTable = `
CREATE TABLE curve (trial INTEGER NOT NULL, metric INTEGER NOT NULL, run TEXT NOT NULL, data BLOB NOT NULL,
	PRIMARY KEY (trial, metric, run)) WITHOUT ROWID;
`

// maxCurveBytes bounds the curves of ended attempts of all sweeps, in bytes. Beyond it those of
// some trials are kept, and beyond twice as much none.
const maxCurveBytes = 256 << 20

// CurveShare says for which trials curves are to be reported, so that the event stream does not
// keep what history has no room for.
func (x *index) CurveShare() grid.CurveShare {
	x.mu.Lock()
	defer x.mu.Unlock()
	total := int64(0)
	for _, s := range x.sweeps {
		total += s.CurveBytes
	}
	return x.curveShare(total)
}

func (x *index) curveShare(total int64) grid.CurveShare {
	switch {
	case total < x.maxCurveBytes:
		return grid.AllCurves
	case total < 2*x.maxCurveBytes:
		return grid.SomeCurves
	}
	return grid.NoCurves
}

// keepsCurves reports whether the curves of a trial are stored.
func (f *fold) keepsCurves(index int64) bool {
	total := int64(0)
	for id, s := range f.d.sweeps {
		if g := f.sweeps[id]; g == nil || g.sweep == nil {
			total += s.CurveBytes
		}
	}
	for _, g := range f.sweeps {
		if g.sweep != nil {
			total += g.sweep.CurveBytes
		}
	}
	return f.d.curveShare(total).Keeps(index)
}

// storeCurves stores curves of one run of a trial, "" for the run that its row describes. It leaves
// out what it can't read.
func (f *fold) storeCurves(g *sweepFold, index int64, run string, curves grid.Curves, ended bool) error {
	if len(curves) == 0 || !f.keepsCurves(index) {
		return nil
	}
	for n, name := range slices.Sorted(maps.Keys(curves)) {
		place, known := g.sweep.nameIndex[name]
		if _, err := curves[name].Points(); err != nil || !known || n >= grid.MaxCurves {
			continue
		}
		if err := f.d.w.run(putCurve, rowID(g.sweep.Number, index), int64(place), run,
			[]byte(curves[name])); err != nil {
			return err
		}
		g.sweep.Curved = true
		if ended {
			g.sweep.CurveBytes += int64(len(curves[name]))
		}
	}
	return nil
}

// renameCurves assigns the curves of one run of a trial to another name of the run.
func (f *fold) renameCurves(g *sweepFold, index int64, from, to string) error {
	if !g.sweep.Curved {
		return nil
	}
	return f.d.w.run(renameRun, to, rowID(g.sweep.Number, index), from)
}

// Curve is the course of a metric of an attempt.
type Curve struct {
	Run    string
	Metric string
	Points []grid.Point
}

// TrialCurves returns the curves of a trial, by run and metric.
func (d *reader) TrialCurves(ctx context.Context, id grid.TrialID) ([]Curve, error) {
	t, known, err := d.Trial(ctx, id)
	if err != nil || !known {
		return nil, err
	}
	s := d.sweep(id.Sweep)
	if s == nil || !s.Curved {
		return nil, nil
	}
	var all []Curve
	text := "SELECT trial, metric, run, data FROM curve WHERE trial = ?"
	err = d.eachCurve(ctx, func(_ int64, metric int, run string, points []grid.Point) {
		if run == "" {
			run = t.Run
		}
		if metric < len(s.Names) { // else it is newer than the summary
			all = append(all, Curve{Run: run, Metric: s.Names[metric], Points: points})
		}
	}, text, rowID(s.Number, id.Index))
	if err != nil {
		return nil, fmt.Errorf("load curves of %s: %w", id, d.markDamage(err))
	}
	return all, nil
}

// Curves returns the curves of a metric of those of these trials that have one, of the attempts
// that give them their states.
func (d *reader) Curves(
	ctx context.Context, id grid.SweepID, metric string, trials []int64,
) (map[int64][]grid.Point, error) {
	s := d.sweep(id)
	if s == nil || !s.Curved {
		return nil, nil
	}
	place, ok := s.nameIndex[metric]
	if !ok {
		return nil, nil
	}
	ids := make([]int64, len(trials))
	for i, index := range trials {
		ids[i] = rowID(s.Number, index)
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	all := make(map[int64][]grid.Point, len(trials))
	text := "SELECT trial, metric, run, data FROM json_each(?) AS t CROSS JOIN curve ON curve.trial = t.value WHERE metric = ? AND run = ''"
	err = d.eachCurve(ctx, func(trial int64, _ int, _ string, points []grid.Point) { all[trial] = points }, text,
		string(list), place)
	if err != nil {
		return nil, fmt.Errorf("load curves of %s: %w", id, d.markDamage(err))
	}
	return all, nil
}

func (d *reader) eachCurve(
	ctx context.Context, fn func(trial int64, metric int, run string, points []grid.Point), text string, args ...any,
) error {
	rows, err := d.read.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var trial int64
		var metric int
		var run string
		var data []byte
		if err := rows.Scan(&trial, &metric, &run, &data); err != nil {
			return err
		}
		points, err := grid.Curve(data).Points()
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		fn(trial&maxIndex, metric, run, points)
	}
	return rows.Err()
}

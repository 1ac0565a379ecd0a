package history

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"mlfnode/grid"
)

// Outcome says what an attempt is to its trial.
type Outcome string

// The outcomes.
const (
	IsRunning    Outcome = "running"
	IsResult     Outcome = "result"     // it gives the trial its state
	IsRetried    Outcome = "retried"    // it failed, and the trial ran again or will
	IsSuperseded Outcome = "superseded" // another attempt gave the result, or runs in its place
)

// Attempt is one run of a trial.
type Attempt struct {
	Number  int
	Run     string
	Node    grid.NodeID
	Outcome Outcome
	Started int64 // microseconds since 1970
	Ended   int64 // 0 while not known to have ended
	Result  grid.Result
}

// isNone reports whether it is of a trial of which nothing has run.
func (a Attempt) isNone() bool { return a.Number == 0 && a.Run == "" }

// The earlier columns of a trial's row hold what the row said before its second attempt, where that
// followed a retry of many trials: most trials that run again have two attempts, and a row for each
// first one in the table attempt would take as long as the rest of the fold.
const earlierColumns = `
ALTER TABLE trial ADD COLUMN earlier_started INTEGER;
ALTER TABLE trial ADD COLUMN earlier_ended INTEGER;
ALTER TABLE trial ADD COLUMN earlier_wall INTEGER;
ALTER TABLE trial ADD COLUMN earlier_cpu INTEGER;
ALTER TABLE trial ADD COLUMN earlier_memory INTEGER;
ALTER TABLE trial ADD COLUMN earlier_metrics TEXT;
ALTER TABLE trial ADD COLUMN earlier_detail BLOB;
`

// keepEarlier moves what a row says to its earlier columns before it gets new values.
const keepEarlier = " ON CONFLICT (id) DO UPDATE SET earlier_started = started, earlier_ended = ended, earlier_wall = wall," +
	" earlier_cpu = cpu, earlier_memory = memory, earlier_metrics = metrics, earlier_detail = detail," +
	" state = excluded.state, attempts = excluded.attempts, started = excluded.started, ended = excluded.ended," +
	" wall = excluded.wall, cpu = excluded.cpu, memory = excluded.memory, objective = excluded.objective," +
	" metrics = excluded.metrics, detail = excluded.detail, reopened = excluded.reopened"

// firstAttempt selects the attempt in the earlier columns of a row, as columns of a trial that is
// pending.
var firstAttempt = fmt.Sprintf(
	"SELECT id, %d, 1, earlier_started, earlier_ended, earlier_wall, earlier_cpu, earlier_memory,"+
		" NULL, earlier_metrics, earlier_detail, 0, NULL FROM trial WHERE id = ? AND earlier_detail IS NOT NULL",
	stateCode(grid.Pending))

// readFirst reads the attempt in the earlier columns of a trial's row.
func (f *fold) readFirst(g *sweepFold, r *trialInFold) error {
	return f.d.w.each(firstAttempt, func(v []driver.Value) error {
		t, err := f.d.decodeTrial(v, &overlay{})
		if a := currentAttempt(&t); !a.isNone() {
			r.first = &a
		}
		return err
	}, rowID(g.sweep.Number, r.trial.Index))
}

// recordAttempt stores an attempt that the trial's row no longer describes: one that another has
// replaced, or one that came second.
func (g *sweepFold) recordAttempt(
	before *grid.Trial, r *trialInFold, change grid.Change, node grid.NodeID, e *grid.Event,
) error {
	id := rowID(g.sweep.Number, before.Index)
	if change == grid.Superseded {
		a := Attempt{Number: e.Attempt, Run: e.Run, Node: node, Outcome: IsSuperseded, Ended: e.Time, Result: *e.Result}
		why, err := g.f.fenceReason(id, before, e.Run)
		if err != nil {
			return err
		}
		if why != "" {
			a.Result.Reason = strings.TrimSpace(why + "\n" + a.Result.Reason)
		}
		if err := g.f.storeCurves(g, before.Index, e.Run, e.Result.Curves, true); err != nil {
			return err
		}
		return g.f.storeAttempt(id, &a)
	}
	if before.Attempt == 0 && before.Run == "" || before.Run == r.trial.Run {
		return nil
	}
	a := currentAttempt(before)
	if a.Outcome == IsRunning {
		a.Outcome = IsSuperseded
	}
	if change == grid.Reconnect && a.Outcome == IsSuperseded {
		a.Ended, a.Result.Class, a.Result.ExitCode, a.Result.Reason = e.Time, grid.ClassHalt,
			grid.NoExit, e.Result.Reason
	}
	if err := g.f.renameCurves(g, before.Index, "", before.Run); err != nil {
		return err
	}
	// of this fold
	if err := g.f.storeCurves(g, before.Index, before.Run, before.Result.Curves, before.Ended > 0); err != nil {
		return err
	}
	if change == grid.Reconnect {
		if err := g.f.renameCurves(g, before.Index, e.Run, ""); err != nil {
			return err
		}
	}
	return g.f.storeAttempt(id, &a)
}

// fenceReason returns why a run lost its lease, "" for one that did not. What it reports later of
// its end does not replace that.
func (f *fold) fenceReason(trial int64, t *grid.Trial, run string) (why string, err error) {
	if t.Run == run {
		return t.Result.Reason, nil
	}
	if err := f.flushAttempts(); err != nil {
		return "", err
	}
	err = f.d.w.each("SELECT result FROM attempt WHERE trial = ? AND run = ?", func(v []driver.Value) error {
		var known grid.Result
		text, _ := v[0].(string)
		if err := json.Unmarshal([]byte(text), &known); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		why = known.Reason
		return nil
	}, trial, run)
	return why, err
}

// storeAttempt stores an attempt, together with others where the fold has many.
func (f *fold) storeAttempt(trial int64, a *Attempt) error {
	kept := a.Result
	kept.Curves = nil // they have a table of their own
	result, err := json.Marshal(&kept)
	if err != nil {
		return fmt.Errorf("pack attempt %d: %w", a.Number, err)
	}
	f.attempts = append(f.attempts, trial, a.Run, int64(a.Number), f.d.numbers[a.Node], string(a.Outcome),
		a.Ended, string(result))
	if len(f.attempts) < attemptRows*attemptColumns {
		return nil
	}
	err = f.d.w.run(putAttempts, f.attempts...)
	f.attempts = f.attempts[:0]
	return err
}

// flushAttempts stores the attempts that wait for others.
func (f *fold) flushAttempts() error {
	for rest := f.attempts; len(rest) > 0; rest = rest[attemptColumns:] {
		if err := f.d.w.run(putAttempt, rest[:attemptColumns]...); err != nil {
			return err
		}
	}
	f.attempts = f.attempts[:0]
	return nil
}

// currentAttempt returns the attempt that a trial's row describes.
func currentAttempt(t *grid.Trial) Attempt {
	a := Attempt{Number: t.Attempt, Run: t.Run, Node: t.Node, Started: t.Result.Started,
		Ended: t.Ended, Result: t.Result}
	switch {
	case t.State == grid.Running:
		a.Outcome = IsRunning
	case t.State.Terminal():
		a.Outcome = IsResult
	default:
		a.Outcome = IsRetried
	}
	return a
}

// Attempts returns every known attempt of a trial by number, then by start; none for a trial
// without events.
func (d *reader) Attempts(ctx context.Context, id grid.TrialID) ([]Attempt, error) {
	t, known, err := d.Trial(ctx, id)
	if err != nil || !known {
		return nil, err
	}
	all, err := d.storedAttempts(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("load attempts of %s: %w", id, d.markDamage(err))
	}
	current := currentAttempt(&t)
	all = slices.DeleteFunc(all, func(a Attempt) bool { return a.Run == current.Run })
	if !current.isNone() {
		all = append(all, current)
	}
	slices.SortFunc(all, func(a, b Attempt) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Started, b.Started), cmp.Compare(a.Run, b.Run))
	})
	return all, nil
}

func (d *reader) storedAttempts(ctx context.Context, id grid.TrialID) ([]Attempt, error) {
	s := d.sweep(id.Sweep)
	if s == nil {
		return nil, nil
	}
	all, err := queryAll(ctx, d.read, nil, func(rows *sql.Rows) (Attempt, error) {
		v, err := scanValues(rows)
		if err != nil {
			return Attempt{}, err
		}
		t, err := d.decodeTrial(v, &overlay{})
		return currentAttempt(&t), err
	}, firstAttempt, rowID(s.Number, id.Index))
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, Attempt.isNone)
	rows, err := d.read.QueryContext(ctx,
		"SELECT run, number, node, outcome, ended, result FROM attempt WHERE trial = ?",
		rowID(s.Number, id.Index))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var a Attempt
		var node int64
		var result []byte
		if err := rows.Scan(&a.Run, &a.Number, &node, &a.Outcome, &a.Ended, &result); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(result, &a.Result); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		a.Node, a.Started = d.node(node), a.Result.Started
		// it may have been moved meanwhile
		if !slices.ContainsFunc(all, func(b Attempt) bool { return b.Run == a.Run }) {
			all = append(all, a)
		}
	}
	return all, rows.Err()
}

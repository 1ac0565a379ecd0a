package monitor

import (
	"context"
	"fmt"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// Output can be missing in two ways: over the task's log_limit it was never stored, and beyond the size of the log stream the
// oldest of all sweeps, or of a node that prints most, is removed. Neither is passed over in silence.

// printed says what is kept of an attempt's output, where first is the first message that the log stream still has of its node.
func printed(ref grid.LogRef, first uint64) api.Printed {
	p := api.Printed{Bytes: ref.Bytes, Cut: ref.Cut}
	switch {
	case ref.First == 0 || first <= ref.First:
	case first > ref.Last:
		p.Gone = api.AllGone
	default:
		p.Gone = api.PartGone
	}
	return p
}

// keptOutput says which output the log stream still has; all where that is unknown.
func (m *Monitor) keptOutput(ctx context.Context) jetstream.LogBounds {
	kept, err := m.cfg.Store.Logs.Bounds(ctx)
	if err != nil {
		m.log.Debug("the oldest output can't be determined", "err", err)
	}
	return kept
}

// tellMissing passes on what is not there of the output that the reader has read: that of one attempt, or of every trial's
// result.
func (m *Monitor) tellMissing(ctx context.Context, rd *reader, number int) error {
	kept := m.keptOutput(ctx)
	if rd.index >= 0 {
		attempts, err := m.cfg.History.Attempts(ctx, grid.TrialID{Sweep: rd.sweep, Index: rd.index})
		if err != nil {
			return fmt.Errorf("find attempts: %w", err)
		}
		if a := pick(attempts, number); a != nil && a.Ended > 0 {
			return m.tellMissingOf(ctx, rd, rd.index, a.Run, a.Result.Log, kept.First(a.Node))
		}
		return nil
	}
	for t, err := range m.cfg.History.Trials(ctx, rd.sweep, history.Query{}) {
		if err != nil {
			return fmt.Errorf("find trials: %w", err)
		}
		if t.Ended == 0 {
			continue
		}
		if err := m.tellMissingOf(ctx, rd, t.Index, t.Run, t.Result.Log, kept.First(t.Node)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Monitor) tellMissingOf(ctx context.Context, rd *reader, index int64, run string, ref grid.LogRef, first uint64) error {
	o := api.Output{Index: index, Run: run, Cut: ref.Cut}
	switch printed(ref, first).Gone {
	case api.AllGone:
		o.Gone = ref.Bytes
	case api.PartGone:
		there, err := m.stored(ctx, rd.sweep, run, ref)
		if err != nil {
			return err
		}
		o.Gone = max(0, ref.Bytes-there)
	}
	if o.Cut == 0 && o.Gone == 0 {
		return nil
	}
	return rd.emit(&o)
}

// stored counts the bytes of a run that the log stream still has.
func (m *Monitor) stored(ctx context.Context, sweep grid.SweepID, run string, ref grid.LogRef) (n int64, err error) {
	var seen api.Seen
	err = m.cfg.Store.Logs.Read(ctx, sweep, jetstream.LogRange{First: ref.First, Last: ref.Last}, func(_ uint64, chunks []jetstream.Chunk) error {
		for i := range chunks {
			if c := &chunks[i]; c.Run == run {
				o := api.Output{Run: run, Stream: streamName(c.Stream), Offset: c.Offset, Data: c.Data}
				if seen.Fresh(&o) {
					n += int64(len(o.Data))
				}
			}
		}
		return nil
	})
	return n, err
}

package monitor

import (
	"context"
	"fmt"
	"log/slog"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// Output can be missing for two reasons: output over the task's log_limit is never stored, and when
// the log stream exceeds its size, the oldest output is removed, of all sweeps or of a node that
// prints most. Either is reported.

// keptOutputOf describes which output of an attempt is kept; first is the first message of its node
// that the log stream still has.
func keptOutputOf(ref grid.LogRef, first uint64) api.Printed {
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

// keptOutput returns the bounds of the output that the log stream still has, or no bounds if they
// are unknown.
func keptOutput(ctx context.Context, store *jetstream.Store, log *slog.Logger) jetstream.LogBounds {
	kept, err := store.Logs.Bounds(ctx)
	if err != nil {
		log.Debug("the oldest output can't be determined", "err", err)
	}
	return kept
}

// reportMissing emits what is missing from the output that the reader has read: for one attempt, or
// for the result of every trial.
func (h *outputHandlers) reportMissing(ctx context.Context, rd *reader, number int) error {
	kept := keptOutput(ctx, h.store, h.log)
	if rd.index >= 0 {
		attempts, err := h.history.Attempts(ctx, grid.TrialID{Sweep: rd.sweep, Index: rd.index})
		if err != nil {
			return fmt.Errorf("find attempts: %w", err)
		}
		if a := pickAttempt(attempts, number); a != nil && a.Ended > 0 {
			return h.reportMissingOf(ctx, rd, rd.index, a.Run, a.Result.Log, kept.First(a.Node))
		}
		return nil
	}
	for t, err := range h.history.Trials(ctx, rd.sweep, history.Query{}) {
		if err != nil {
			return fmt.Errorf("find trials: %w", err)
		}
		if t.Ended == 0 {
			continue
		}
		if err := h.reportMissingOf(ctx, rd, t.Index, t.Run, t.Result.Log, kept.First(t.Node)); err != nil {
			return err
		}
	}
	return nil
}

func (h *outputHandlers) reportMissingOf(
	ctx context.Context, rd *reader, index int64, run string, ref grid.LogRef, first uint64,
) error {
	o := api.Output{Index: index, Run: run, Cut: ref.Cut}
	switch keptOutputOf(ref, first).Gone {
	case api.AllGone:
		o.Gone = ref.Bytes
	case api.PartGone:
		there, err := h.storedBytes(ctx, rd.sweep, run, ref)
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

// storedBytes counts the bytes of a run that the log stream still has.
func (h *outputHandlers) storedBytes(
	ctx context.Context, sweep grid.SweepID, run string, ref grid.LogRef,
) (n int64, err error) {
	var seen api.SeenOutput
	err = h.store.Logs.Read(ctx, sweep, jetstream.LogRange{First: ref.First, Last: ref.Last},
		func(_ uint64, chunks []jetstream.Chunk) error {
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

package history

import (
	"context"
	"fmt"

	"mlfnode/grid"
)

// FoldProgress stores metrics of running trials, which are reported beside the event stream. It
// keeps only the newest of a trial, and skips those of sweeps and runs without an event. It does
// not change Applied.
func (d *DB) FoldProgress(ctx context.Context, batches []*grid.Batch, policy func(grid.SweepID) (Policy, bool)) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.stale {
		if err := d.load(); err != nil {
			return fmt.Errorf("load history again: %w", d.markDamage(err))
		}
	}
	f := &fold{d: d, policy: policy, applied: d.applied, sweeps: map[grid.SweepID]*sweepFold{}}
	err := d.w.transaction(func() error {
		for _, b := range batches {
			if d.sweeps[b.Sweep] == nil {
				continue
			}
			if err := f.foldBatch(b); err != nil {
				return fmt.Errorf("metrics of %s: %w", b.Sweep, err)
			}
		}
		return f.flush()
	})
	d.blocks.transactionEnded(func() {
		if err == nil {
			f.publish()
		}
	})
	if err != nil {
		d.reload()
		return fmt.Errorf("store metrics: %w", d.markDamage(err))
	}
	return nil
}

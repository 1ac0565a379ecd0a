package master

import (
	"context"
	"fmt"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// progressQueue bounds the messages with metrics that wait for history. What does not fit is
// dropped: nodes send newer ones.
const progressQueue = 256

// foldProgress stores the newest metrics of running trials in history.
func (m *Master) foldProgress(ctx context.Context) error {
	waiting := make(chan *grid.Batch, progressQueue)
	defer m.cfg.Store.Calls.HandleMetrics(func(b *grid.Batch) {
		select {
		case waiting <- b:
		default:
		}
	})()
	for {
		var batches []*grid.Batch
		select {
		case b := <-waiting:
			batches = append(batches, b)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for len(waiting) > 0 {
			batches = append(batches, <-waiting)
		}
		if err := m.cfg.History.FoldProgress(ctx, batches, m.policy); err != nil && !history.IsFull(err) {
			return fmt.Errorf("store metrics of running trials: %w", err)
		}
		batches = slices.DeleteFunc(batches, func(b *grid.Batch) bool {
			r, ok := m.Sweep(b.Sweep)
			return !ok || r.Sweep.Task.Stop == nil
		})
		if len(batches) > 0 {
			m.post(func(s *scheduler) {
				for _, b := range batches {
					if f := s.feeds[b.Sweep]; f != nil && f.earlyStop != nil {
						for i := range b.Events {
							f.earlyStop.observeProgress(f, &b.Events[i])
						}
					}
				}
			})
		}
		m.signalChange()
	}
}

package executortest

import (
	"context"
	"time"

	"mlfnode/node/executor"
)

// Instant is an executor whose attempts succeed immediately without running anything, which leaves
// only the cost of everything around the executor. It keeps none of the suite's promises.
type Instant struct{}

var _ executor.Executor = Instant{}

// Slot creates a slot.
func (Instant) Slot() (executor.Slot, error) { return instantSlot{}, nil }

type instantSlot struct{}

// Run succeeds immediately.
func (instantSlot) Run(context.Context, *executor.Attempt) executor.Outcome {
	now := time.Now()
	return executor.Outcome{Start: now, End: now}
}

// Close does nothing.
func (instantSlot) Close() error { return nil }

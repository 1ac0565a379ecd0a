package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
)

// How long a machine may take to answer. What hangs is a disk of the network or a driver as a rule, and nothing would end it.
const (
	probeTimeout   = 30 * time.Second // each program that is known to hang has 5 s of it
	commandTimeout = 30 * time.Second
	requestTimeout = 3 * time.Minute // a start waits for another order, the join, the service and the node
	// stopTimeout covers trials that save their state, and the removal of all results.
	stopTimeout = grid.MaxCheckpointGrace + 10*time.Minute
)

// timeoutOf is how long an order may take, 0 for as long as the line takes.
func timeoutOf(action string) time.Duration {
	switch action {
	case protocol.ActionReceive:
		return 0
	case protocol.ActionStop:
		return stopTimeout
	}
	return requestTimeout
}

// withTimeout does something that is given up after a while.
func withTimeout[T any](ctx context.Context, limit time.Duration, who string, fn func(context.Context) (T, error)) (T, error) {
	if limit == 0 {
		return fn(ctx)
	}
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	v, err := fn(limited)
	if err != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		err = problem(fmt.Sprintf("%s gave no answer within %v", who, limit),
			"log in and look what hangs there, as a disk of the network or a driver: df; nvidia-smi -L; docker version")
	}
	return v, err
}

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mlfnode/grid"
)

// How long a machine may take to answer. What hangs is usually a network disk or a driver, and
// would hang forever.
const (
	probeTimeout   = 30 * time.Second // each program that is known to hang gets 5 s of it
	commandTimeout = 30 * time.Second
	requestTimeout = 3 * time.Minute // a start waits for another request, the join, the service and the node
	// stopTimeout covers trials that save their state, and the removal of all results.
	stopTimeout = grid.MaxCheckpointGrace + 10*time.Minute
)

// withTimeout runs fn with a timeout, unless that is 0, and reports who did not answer if it
// expires.
func withTimeout[T any](
	ctx context.Context, limit time.Duration, who string, fn func(context.Context) (T, error),
) (T, error) {
	if limit == 0 {
		return fn(ctx)
	}
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	v, err := fn(limited)
	if err != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		err = problem(fmt.Sprintf("%s did not answer within %v", who, limit),
			"log in and find out what hangs there, such as a network disk or a driver: df; nvidia-smi -L; docker version")
	}
	return v, err
}

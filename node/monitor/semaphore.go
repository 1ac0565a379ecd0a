package monitor

import (
	"context"
)

// semaphore bounds the number of callers that do something costly at a time by its capacity.
type semaphore chan struct{}

// acquire waits for a slot and returns the function that frees it.
func (t semaphore) acquire(ctx context.Context) (leave func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

package monitor

import (
	"context"
)

// turns bounds how many callers do something costly at one time: its capacity.
type turns chan struct{}

// wait waits for a turn, and gives what ends it.
func (t turns) wait(ctx context.Context) (leave func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

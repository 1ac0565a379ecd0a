// Package poll waits: for a condition that nothing announces, and between the attempts at something
// that fails. Every wait ends with its context. A Signal ends the wait of a goroutine that would
// otherwise poll.
package poll

import (
	"context"
	"math/rand/v2"
	"time"
)

// Until calls cond immediately, and then at each interval until it returns true or an error, or ctx
// ends. It returns nil, the error of cond, or the cause of ctx's end.
func Until(ctx context.Context, interval time.Duration, cond func() (bool, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if done, err := cond(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Within calls cond immediately, and then at each interval until it returns true, limit has passed
// or ctx ends. It reports whether cond returned true.
func Within(ctx context.Context, limit, interval time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return Until(ctx, interval, func() (bool, error) { return cond(), nil }) == nil
}

// Sleep waits for a duration. It returns false, possibly sooner, if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Jitter returns a random duration from d/2 to 3d/2, so that those who wait for the same thing do
// not all try at once. d must be positive.
func Jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// Backoff is a pause between attempts that doubles each time, from First up to Longest.
type Backoff struct {
	First, Longest time.Duration

	pause time.Duration // the last one; 0 before the first
}

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.pause = min(max(2*b.pause, b.First), b.Longest)
	return b.pause
}

// Reset makes the next pause the first again.
func (b *Backoff) Reset() { b.pause = 0 }

// Sleep waits for the next pause. It returns false if ctx ends first.
func (b *Backoff) Sleep(ctx context.Context) bool { return Sleep(ctx, b.Next()) }

package natsd

import (
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
)

// TestNoCallAfterStop stops an observer while it runs: stop waits for it, so that the resources
// that it uses may be released afterwards.
func TestNoCallAfterStop(t *testing.T) {
	t.Parallel()
	c := newConnections()
	c.add(1, "a")
	begun, end := make(chan struct{}), make(chan struct{})
	stop := c.onDisconnect(func(grid.NodeID) {
		close(begun)
		<-end
	})
	var reaping sync.WaitGroup
	reaping.Go(func() { c.reap(func(uint64) bool { return false }, func(uint64) {}) })
	<-begun
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	select {
	case <-stopped:
		t.Error("stop has returned while a call is under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	<-stopped
	reaping.Wait()
	c.add(2, "a")
	// closes began again, which panics, if the observer is called
	c.reap(func(uint64) bool { return false }, func(uint64) {})
}

package hosts

import (
	"sync"
	"time"
)

// Clock is the wall clock of a host, as its mlfnode processes see it.
type Clock struct {
	host *Host

	mu     sync.Mutex
	offset time.Duration
}

// SetOffset sets the wall clock of the host's mlfnode processes, both current and future ones,
// ahead by d of the true time, or back if d is negative. It changes neither the monotonic clock nor
// the machine's own clock. A reboot undoes it.
func (c *Clock) SetOffset(d time.Duration) {
	h, t := c.host, c.host.harness.t
	t.Helper()
	c.mu.Lock()
	c.offset = d
	c.mu.Unlock()
	for _, p := range h.Processes.List() {
		if !p.is(h.mlfnode()) && !p.isShipped() {
			continue
		}
		if err := setClock(p.PID, d); err != nil && alive(p.PID) {
			t.Fatalf("set the clock of %s: %v", h.Name, err)
		}
	}
}

func (c *Clock) current() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

func (c *Clock) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = 0
}

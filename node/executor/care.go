package executor

import (
	"bytes"
	"sync"
	"time"
)

// care is what is looked at now and then while an attempt runs where cgroups don't do it for us: the program's peak memory,
// and zombies that its tree has left to us. It costs a timer for an attempt that ends soon.
type care struct {
	slot *processSlot
	main int

	mu    sync.Mutex
	timer *time.Timer
	pause time.Duration
	over  bool
	seen  int64 // peak resident bytes of the program
}

// The looks become rare in a long attempt.
const (
	firstCare = 50 * time.Millisecond
	lastCare  = 30 * time.Second
	// kinCare is the longest pause where the looks also record what would get away if this process died.
	kinCare = 5 * time.Second
)

func (s *processSlot) newCare(main int) *care {
	c := &care{slot: s, main: main, pause: firstCare}
	if s.kin == nil && s.cage.measures() {
		return c
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(c.pause, c.look)
	return c
}

func (c *care) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if status, ok := readProc(c.main, "status", make([]byte, 0, 4096)); ok {
		if _, rest, found := bytes.Cut(status, []byte("VmHWM:")); found {
			c.seen = max(c.seen, number(bytes.TrimLeft(rest, " \t"))<<10)
		}
	}
	if c.slot.kin != nil {
		c.slot.kin.look(time.Now().Add(-c.pause / 2))
	}
	if c.pause = min(2*c.pause, lastCare); c.slot.kin != nil {
		c.pause = min(c.pause, kinCare)
	}
	c.timer.Reset(c.pause)
}

// stop ends the looks. After it, seen does not change.
func (c *care) stop() {
	if c.timer == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.timer.Stop()
}

package shim

import (
	"sync"
	"time"
)

// countdown calls a func after this process has been running for some time. A plain timer would
// expire immediately after the process was stopped or swapped out for long, before it has looked
// for agents that connected meanwhile. The zero value with its func is stopped.
type countdown struct {
	over func()

	mu    sync.Mutex
	step  time.Duration
	left  int // steps
	begun time.Time
	timer *time.Timer
	life  int // counts Reset and Stop, so that an outdated step does not count
}

// countSteps is the number of steps of a countdown.
const countSteps = 20

// Reset restarts the countdown.
func (c *countdown) Reset(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked()
	c.step, c.left = d/countSteps, countSteps
	c.nextLocked()
}

// Stop stops the countdown, unless it has already expired.
func (c *countdown) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked()
}

func (c *countdown) stopLocked() {
	c.life++
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *countdown) nextLocked() {
	life := c.life
	c.begun = time.Now()
	c.timer = time.AfterFunc(c.step, func() { c.tick(life) })
}

// tick ends a step. A step that took much longer than it should does not count, because this
// process was not running.
func (c *countdown) tick(life int) {
	c.mu.Lock()
	if life != c.life {
		c.mu.Unlock()
		return
	}
	if time.Since(c.begun) < 2*c.step {
		c.left--
	}
	if c.left > 0 {
		c.nextLocked()
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.over()
}

package shim

import (
	"sync"
	"time"
)

// countdown calls a func after a time in which this process got to run. A timer alone would be over at once when the process was
// stopped or swapped out for long, before it has looked at who called meanwhile. The zero value with its func is at rest.
type countdown struct {
	over func()

	mu    sync.Mutex
	step  time.Duration
	left  int // steps
	begun time.Time
	timer *time.Timer
	life  int // counts Reset and Stop, so that a step that was on its way does not count
}

// countSteps is into how many steps a countdown cuts its time.
const countSteps = 20

// Reset restarts the countdown.
func (c *countdown) Reset(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked()
	c.step, c.left = d/countSteps, countSteps
	c.nextLocked()
}

// Stop ends the countdown. What is over stays over.
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

// tick ends a step. One that took much longer than it should does not count: this process did not run.
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

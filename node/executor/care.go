package executor

import (
	"bytes"
	"os"
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
	kills int64 // out-of-memory kills on the machine at the first look; 0 before it and where they are not known
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
	if c.kills == 0 {
		c.kills = machineKills()
	}
	if c.slot.kin != nil {
		c.slot.kin.look(time.Now().Add(-c.pause / 2))
	}
	if c.pause = min(2*c.pause, lastCare); c.slot.kin != nil {
		c.pause = min(c.pause, kinCare)
	}
	c.timer.Reset(c.pause)
}

// starved reports whether the kernel has killed something on this machine for want of memory since the first look. Where no cgroup counts
// the kills of an attempt, this is all that tells one of them from somebody's kill -9.
func (c *care) starved() bool { return c.kills > 0 && machineKills() > c.kills }

// machineKills counts the out-of-memory kills since the start of the machine, from 1; 0 is not known (Linux before 4.13).
func machineKills() int64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	_, rest, found := bytes.Cut(b, []byte("\noom_kill "))
	if !found {
		return 0
	}
	return number(rest) + 1
}

// stop ends the looks. After it, nothing of it changes.
func (c *care) stop() {
	if c.timer == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.timer.Stop()
}

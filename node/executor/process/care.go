package process

import (
	"bytes"
	"cmp"
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
	// kills is how many out-of-memory kills there had been on the machine at the look before the last, or
	// at the only one, and counted at the last: a program that is killed has ended by the look after.
	// Both are 0 before a look and where they are not known.
	kills, counted int64
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
	c.count(machineKills())
	if c.slot.kin != nil {
		c.slot.kin.look(time.Now().Add(-c.pause / 2))
	}
	if c.pause = min(2*c.pause, lastCare); c.slot.kin != nil {
		c.pause = min(c.pause, kinCare)
	}
	c.timer.Reset(c.pause)
}

// count notes how many out-of-memory kills there have been by now.
func (c *care) count(kills int64) { c.kills, c.counted = cmp.Or(c.counted, kills), kills }

// starved reports whether the kernel, which has made this many out-of-memory kills on this machine by
// now, has made one of them lately. Where no cgroup counts the kills of an attempt, this is all that
// tells one of them from somebody's kill -9.
func (c *care) starved(kills int64) bool { return c.kills > 0 && kills > c.kills }

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

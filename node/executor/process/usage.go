package process

import (
	"bytes"
	"cmp"
	"os"
	"sync"
	"time"
)

// usageSampler is what is looked at now and then while an attempt runs where cgroups don't do it for us: the program's peak memory,
// and zombies that its tree has left to us. It costs a timer for an attempt that ends soon.
type usageSampler struct {
	slot *slot
	main int

	mu      sync.Mutex
	timer   *time.Timer
	pause   time.Duration
	stopped bool
	peak    int64 // peak resident bytes of the program
	// kills is how many out-of-memory kills there had been on the machine at the look before the last, or
	// at the only one, and counted at the last: a program that is killed has ended by the look after.
	// Both are 0 before a look and where they are not known.
	previousKills, latestKills int64
}

// The looks become rare in a long attempt.
const (
	firstSamplePause = 50 * time.Millisecond
	maxSamplePause   = 30 * time.Second
	// kinCare is the longest pause where the looks also record what would get away if this process died.
	maxScanPause = 5 * time.Second
)

func (s *slot) sampleUsage(main int) *usageSampler {
	c := &usageSampler{slot: s, main: main, pause: firstSamplePause}
	if s.tree == nil && s.cgroup.measuresPeak() {
		return c
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(c.pause, c.sample)
	return c
}

func (u *usageSampler) sample() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped {
		return
	}
	if status, ok := readProc(u.main, "status", make([]byte, 0, 4096)); ok {
		if _, rest, found := bytes.Cut(status, []byte("VmHWM:")); found {
			u.peak = max(u.peak, leadingNumber(bytes.TrimLeft(rest, " \t"))<<10)
		}
	}
	u.recordKills(machineKills())
	if u.slot.tree != nil {
		u.slot.tree.scan(time.Now().Add(-u.pause / 2))
	}
	if u.pause = min(2*u.pause, maxSamplePause); u.slot.tree != nil {
		u.pause = min(u.pause, maxScanPause)
	}
	u.timer.Reset(u.pause)
}

// recordKills notes how many out-of-memory kills there have been by now.
func (u *usageSampler) recordKills(kills int64) {
	u.previousKills, u.latestKills = cmp.Or(u.latestKills, kills), kills
}

// recentOOMKill reports whether the kernel, which has made this many out-of-memory kills on this machine by
// now, has made one of them lately. Where no cgroup counts the kills of an attempt, this is all that
// tells one of them from somebody's kill -9.
func (u *usageSampler) recentOOMKill(kills int64) bool {
	return u.previousKills > 0 && kills > u.previousKills
}

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
	return leadingNumber(rest) + 1
}

// stop ends the looks. After it, nothing of it changes.
func (u *usageSampler) stop() {
	if u.timer == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	u.timer.Stop()
}

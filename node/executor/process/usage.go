package process

import (
	"bytes"
	"cmp"
	"os"
	"sync"
	"time"

	"mlfnode/node/procfs"
)

// usageSampler samples, while an attempt runs, what cgroups would otherwise account for: the peak
// memory of the program, and zombies that its tree has left to us. For an attempt that ends soon it
// costs one timer.
type usageSampler struct {
	slot *slot
	main int

	mu      sync.Mutex
	timer   *time.Timer
	pause   time.Duration
	stopped bool
	peak    int64 // peak resident memory of the program, in bytes
	// previousKills is the number of out-of-memory kills on the machine at the last sample but one
	// (or at the only one), latestKills at the last: a program that is killed has ended by the next
	// sample. Both are 0 before the first sample and where the number is unknown.
	previousKills, latestKills int64
}

// Sampling becomes rare in a long attempt.
const (
	firstSamplePause = 50 * time.Millisecond
	maxSamplePause   = 30 * time.Second
	// maxScanPause is the longest pause where sampling also records what would escape if this
	// process died.
	maxScanPause = 5 * time.Second
)

func (s *slot) sampleUsage(main int) *usageSampler {
	c := &usageSampler{slot: s, main: main, pause: firstSamplePause}
	if s.tree == nil && s.memory.measuresPeak() {
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
	if status, ok := procfs.Read(u.main, "status", make([]byte, 0, 4096)); ok {
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

// recordKills records the current number of out-of-memory kills.
func (u *usageSampler) recordKills(kills int64) {
	u.previousKills, u.latestKills = cmp.Or(u.latestKills, kills), kills
}

// recentOOMKill reports whether the kernel, which has made this many out-of-memory kills on this
// machine by now, has made one recently. Where no cgroup counts the kills of an attempt, only this
// tells an out-of-memory kill from a kill -9.
func (u *usageSampler) recentOOMKill(kills int64) bool {
	return u.previousKills > 0 && kills > u.previousKills
}

// machineKills returns one more than the number of out-of-memory kills since the machine started,
// or 0 if it is unknown (Linux before 4.13).
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

// stop stops sampling. Afterwards the sampler's fields no longer change.
func (u *usageSampler) stop() {
	if u.timer == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	u.timer.Stop()
}

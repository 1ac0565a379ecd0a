// Package packing estimates how much memory of a GPU the trials of a sweep need, so that several of them can share one device. It
// learns from trials that have ended; it does no I/O, reads no clock and starts no goroutine.
//
// One Estimate stands for one model of GPU and, where a task names an axis in measure_by, for one value of that axis:
//
//	learning: the first trials get a whole device each
//	    │ enough of them have ended
//	    ▼
//	packed: a trial gets the highest peak seen and a margin
//	    └── a trial runs out of memory beside others, or uses more than it was given ──► a higher estimate
package packing

import (
	"fmt"
	"time"

	"mlfnode/grid"
)

const (
	// Trials is how many trials must have ended on a whole device before others share one, and TrialsByValue how many for each value
	// of the axis in measure_by.
	Trials, TrialsByValue = 3, 2
	// MinRun is how long a trial must run to teach something: the memory of a device is looked at once a second.
	MinRun = 10 * time.Second
	// MaxShared is the most trials on one device.
	MaxShared = 8
	// Step is what estimates are rounded up to, so that they do not change for every megabyte.
	Step = 256 << 20
)

// Estimate is what is known of the trials that one model of GPU runs.
type Estimate struct {
	Model string `json:"model"`           // of the GPU
	Value string `json:"value,omitempty"` // of the axis in measure_by

	Device  int64 `json:"device"`            // bytes of one device
	Memory  int64 `json:"memory,omitempty"`  // bytes that a trial gets; 0 while that is not known
	Peak    int64 `json:"peak,omitempty"`    // the most that a trial has used, or has tried to use
	Busy    int   `json:"busy,omitempty"`    // utilisation of a device by one trial alone, in per cent
	Learned int   `json:"learned,omitempty"` // trials that have ended on a whole device and count
	Short   int   `json:"short,omitempty"`   // trials in a row that ended too soon to count
	Idle    int   `json:"idle,omitempty"`    // trials in a row that did not use their device
}

// Attempt is how an attempt ended, and what it used of its device.
type Attempt struct {
	Share       int64 // bytes of the device that it was given; 0 for a whole device
	Peak        int64 // bytes
	Busy        int   // mean utilisation of the device in per cent
	Wall        time.Duration
	Succeeded   bool
	OutOfMemory bool  // it ran out of the device's memory while others used the device too
	Asked       int64 // what it then tried to allocate; 0 when that is not known
}

// Learn takes an attempt into account. Needed is Trials or TrialsByValue.
func (e *Estimate) Learn(a Attempt, needed int) {
	a.Peak, a.Asked, a.Share = min(max(a.Peak, 0), e.Device), min(max(a.Asked, 0), e.Device), min(max(a.Share, 0), e.Device)
	a.Busy, a.Wall = min(max(a.Busy, 0), 100), max(a.Wall, 0)
	e.Peak = max(e.Peak, a.Peak)
	switch {
	case a.OutOfMemory && a.Share > 0:
		e.Peak = max(e.Peak, min(a.Peak+a.Asked, e.Device))
		e.raise(max(a.Share+a.Share/4, a.Peak+a.Asked))
	case e.Memory > 0 && a.Peak > e.Memory:
		e.raise(margin(a.Peak))
	case a.Succeeded && a.Share == 0:
		e.learnAlone(a, needed)
	}
}

func (e *Estimate) learnAlone(a Attempt, needed int) {
	switch {
	case a.Wall < MinRun:
		e.Short = min(e.Short+1, Trials)
		return
	case a.Peak == 0:
		e.Idle = min(e.Idle+1, Trials)
		return
	}
	e.Short, e.Idle = 0, 0
	e.Learned = min(e.Learned+1, needed)
	e.Busy += (a.Busy - e.Busy) / e.Learned
	if e.Learned == needed && e.Memory == 0 {
		e.raise(margin(e.Peak))
	}
}

// raise makes the estimate at least so high.
func (e *Estimate) raise(to int64) {
	e.Memory = max(e.Memory, min(roundUp(to, Step), e.Device))
}

// Learning reports whether trials are to get a whole device because too little is known.
func (e *Estimate) Learning(needed int) bool {
	return e.Learned < needed && !e.hopeless() && e.Memory == 0
}

// hopeless reports whether trials end without having taught anything.
func (e *Estimate) hopeless() bool { return e.Short >= Trials || e.Idle >= Trials }

// Fit gives how many trials share a device, and the part of it that each gets in bytes, a multiple of step, and in thousandths. Trials
// that do not share get a whole device: 1, its bytes and grid.One.
func (e *Estimate) Fit(step int64) (n int, memory int64, share grid.Milli) {
	memory = roundUp(e.Memory, step)
	if e.Memory <= 0 || memory > e.Device {
		return 1, e.Device, grid.One
	}
	n = int(min(e.Device/memory, MaxShared))
	if e.Busy > 0 {
		n = min(n, 1000/(8*e.Busy)) // 80 % of the utilisation: trials also wait for one another
	}
	if n <= 1 {
		return 1, e.Device, grid.One
	}
	part := grid.Milli((int64(grid.One)*memory + e.Device - 1) / e.Device)
	return n, memory, min(max(part, grid.Milli(8*e.Busy)), grid.One/grid.Milli(n))
}

// Differs reports whether more has changed than the mean of the utilisation, which need not be stored at once.
func (e *Estimate) Differs(before *Estimate) bool {
	a, b := *e, *before
	a.Busy = b.Busy
	return a != b
}

// String says what trials get and why.
func (e *Estimate) String() string {
	n, _, _ := e.Fit(Step)
	switch {
	case e.Idle >= Trials:
		return "a whole GPU each: the trials do not use the GPU; set gpus: 0"
	case e.Short >= Trials:
		return fmt.Sprintf("a whole GPU each: the trials end within %s, too soon to be measured", MinRun)
	case e.Memory == 0:
		return fmt.Sprintf("a whole GPU each, until more trials are measured: %d so far", e.Learned)
	case n > 1:
		return fmt.Sprintf("%d trials on a GPU, %s each: at most %s used so far", n, gib(e.Memory), gib(e.Peak))
	case e.Device/e.Memory > 1:
		return fmt.Sprintf("a whole GPU each: one trial keeps it busy for %d %% of the time", e.Busy)
	}
	return fmt.Sprintf("a whole GPU each: a trial needs %s of %s", gib(e.Memory), gib(e.Device))
}

func margin(peak int64) int64 { return peak + peak*15/100 + Step }

func roundUp(n, step int64) int64 { return (n + step - 1) / step * step }

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

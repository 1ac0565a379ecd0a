// Package packing estimates how much GPU memory the trials of a sweep need, so that several of them
// can share one device. It learns from trials that have ended; it does no I/O, reads no clock and
// starts no goroutine.
//
// One Estimate stands for one model of GPU and, if a task names an axis in measure_by, for one
// value of that axis:
//
//	learning: the first trials get a whole device each
//	    │ enough of them have ended
//	    ▼
//	packed: a trial gets the highest observed peak and a margin
//	    └── a trial runs out of memory beside others, or exceeds its share ──► a higher estimate
package packing

import (
	"fmt"
	"time"

	"mlfnode/grid"
)

const (
	// Trials is how many trials must have ended on a whole device before others share one.
	// TrialsByValue is the same for each value of the axis in measure_by.
	Trials, TrialsByValue = 3, 2
	// MinRun is the minimum run time of a trial that counts: device memory is sampled once a
	// second.
	MinRun = 10 * time.Second
	// MaxShared bounds the trials on one device.
	MaxShared = 8
	// Step is the unit to which estimates are rounded up, so that they do not change with every
	// megabyte.
	Step = 256 << 20
)

// Estimate is the estimate for a sweep's trials on one model of GPU.
type Estimate struct {
	Model string `json:"model"`           // model of the GPU
	Value string `json:"value,omitempty"` // value of the axis in measure_by

	Device  int64 `json:"device"`            // memory of one device, in bytes
	Memory  int64 `json:"memory,omitempty"`  // bytes that a trial gets; 0 while unknown
	Peak    int64 `json:"peak,omitempty"`    // the most that a trial has used, or has tried to use
	Busy    int   `json:"busy,omitempty"`    // utilisation of a device by a single trial, in percent
	Learned int   `json:"learned,omitempty"` // trials on a whole device that have ended and count
	Short   int   `json:"short,omitempty"`   // consecutive trials that ended too soon to count
	Idle    int   `json:"idle,omitempty"`    // consecutive trials that did not use their device
}

// Attempt is the outcome of an attempt, with its use of the device.
type Attempt struct {
	Share       int64 // bytes of the device that the attempt was given; 0 for a whole device
	Peak        int64 // bytes
	Busy        int   // mean utilisation of the device in percent
	Wall        time.Duration
	Succeeded   bool
	OutOfMemory bool  // it ran out of device memory while others used the device as well
	Asked       int64 // what it then tried to allocate; 0 if unknown
}

// Learn updates the estimate from an attempt. needed is Trials or TrialsByValue.
func (e *Estimate) Learn(a Attempt, needed int) {
	a.Peak, a.Asked, a.Share = min(max(a.Peak, 0), e.Device), min(max(a.Asked, 0), e.Device),
		min(max(a.Share, 0), e.Device)
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

// raise raises the estimate to at least the given value.
func (e *Estimate) raise(to int64) {
	e.Memory = max(e.Memory, min(roundUp(to, Step), e.Device))
}

// Learning reports whether trials get a whole device because too little is known, unless they keep
// ending without contributing to the estimate.
func (e *Estimate) Learning(needed int) bool {
	return e.Learned < needed && e.Memory == 0 && e.Short < Trials && e.Idle < Trials
}

// Fit returns how many trials share a device, and each one's part of the device in bytes, a
// multiple of step, and in thousandths. For trials that do not share, these are 1, the whole device
// and grid.One.
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

// Differs reports whether more has changed than the mean utilisation, which need not be stored
// immediately.
func (e *Estimate) Differs(before *Estimate) bool {
	a, b := *e, *before
	a.Busy = b.Busy
	return a != b
}

// String describes what trials get and why.
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

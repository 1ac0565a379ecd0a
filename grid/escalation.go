package grid

import (
	"math"

	"mlfnode/grid/problem"
)

const (
	// MaxEscalations is how many times a trial gets more memory than its last attempt had; further
	// retries keep the last amount.
	MaxEscalations = 3
	// MaxEscalation bounds the factor of one escalation.
	MaxEscalation = 10
)

// EscalatedClasses returns the failure classes after which a retry can get more memory, of the
// machine or of a GPU.
func EscalatedClasses() []Class { return []Class{ClassMemory, ClassCUDAMemory} }

// sharedTries is how often a trial may run out of memory on a shared device before it gets a whole
// one.
const sharedTries = 2

// Escalated returns the resources of the next attempt of a trial with these failures. They are
// those of the task, unless the task escalates memory on retries or the trial has run out of memory
// on shared devices. It applies as many escalation steps as fit.
func (t *Task) Escalated(failed map[Class]int, fits func(Resources) bool) Resources {
	r := t.Resources.Initial()
	whole := failed[ClassCUDAShared] >= sharedTries && t.Resources.Shares()
	if whole {
		r.GPUs = One
	}
	r.Memory = escalated(r.Memory, t.Escalate[ClassMemory], failed[ClassMemory], func(n int64) bool {
		r.Memory = n
		return fits(r)
	})
	r.GPUMemory = escalated(r.GPUMemory, t.Escalate[ClassCUDAMemory], failed[ClassCUDAMemory], func(n int64) bool {
		r.GPUMemory = n
		return fits(r)
	})
	if !whole && r == t.Resources.Initial() {
		return t.Resources
	}
	return r
}

func escalated(amount int64, factor float64, failures int, fits func(int64) bool) int64 {
	if factor <= 1 || amount <= 0 {
		return amount
	}
	for steps := min(failures, MaxEscalations); steps > 0; steps-- {
		more := float64(amount) * math.Pow(factor, float64(steps))
		if more < math.MaxInt64 && fits(int64(more)) {
			return int64(more)
		}
	}
	return amount
}

// CheckEscalation returns an error if the task's escalation of memory is invalid.
func (t *Task) CheckEscalation() error {
	for class, factor := range t.Escalate {
		amount, what := t.Resources.Memory, "memory"
		switch class {
		case ClassMemory:
		case ClassCUDAMemory:
			amount, what = t.Resources.GPUMemory, "gpu_memory"
		default:
			return problem.Errorf("Only oom and cuda_oom can.", "retries of %.60q can't get more memory", string(class))
		}
		if !(factor > 1 && factor <= MaxEscalation) {
			return problem.Errorf("Give a factor like 1.5.",
				"memory of the retries of %s is %g, which is not a number above 1 and up to %d",
				class, factor, MaxEscalation)
		}
		if amount <= 0 {
			return problem.Errorf("Give resources."+what+" a size, like 4GiB.",
				"retries of %s should get more memory, but the task does not say how much it needs", class)
		}
		if t.Retries[class] == 0 {
			return problem.Errorf("Give times, like {times: 2, memory: 1.5}.",
				"retries of %s should get more memory, but there are none", class)
		}
	}
	return nil
}

package grid

import (
	"slices"
	"strings"
	"time"

	"mlfnode/grid/problem"
)

// Checkpoint says how a task saves its state, so that a trial which is stopped goes on from there instead of from its beginning. A
// task without one is stopped by TERM to all of its processes, and its trials start over.
type Checkpoint struct {
	Signal    string        `json:"signal"`          // the notice before a stop, one of checkpointSignals
	Grace     time.Duration `json:"grace"`           // between the notice and KILL
	Every     time.Duration `json:"every,omitempty"` // between snapshots of a running attempt; 0 takes them at ends only
	Quiet     time.Duration `json:"quiet"`           // how long the folder must be unchanged before a running attempt's snapshot
	MaxSize   int64         `json:"max_size"`        // bytes of the largest snapshot that is stored
	Repeats   int           `json:"repeats"`         // how often a trial may end with ExitSaved, or be resumed after its timeout
	OnTimeout string        `json:"on_timeout"`      // what follows the timeout: TimeoutFails or TimeoutResumes
}

// What follows when an attempt reaches its timeout: the trial's failure, or a further attempt that goes on from the checkpoint.
const (
	TimeoutFails   = "fail"
	TimeoutResumes = "resume"
)

// ExitSaved is the exit code by which a program that nobody has stopped says that it saved its state and is to be run again. It is
// HTCondor's convention for programs that split themselves.
const ExitSaved = 85

const (
	// MaxCheckpointGrace bounds the time that a program gets to save its state: a node that is drained waits for it.
	MaxCheckpointGrace = 10 * time.Minute
	// MaxRepeats bounds Checkpoint.Repeats.
	MaxRepeats = 1_000_000
)

// unreadableTime is how soon after its start an attempt must fail for its saved state to be the reason.
const unreadableTime = 5 * time.Minute

// Unreadable reports whether an attempt failed soon after its start because it could not read the state from which it went on.
func (r *Result) Unreadable() bool {
	return r.Class == ClassCheckpoint && r.Usage.Wall < unreadableTime.Microseconds()
}

// DefaultCheckpoint is what a task that declares a checkpoint gets where it says nothing else. A Grace of 0 stands for the task's own.
func DefaultCheckpoint() Checkpoint {
	return Checkpoint{
		Signal: "TERM", Quiet: 10 * time.Second, MaxSize: 10 << 30, Repeats: 1000, OnTimeout: TimeoutFails,
	}
}

// checkpointSignals can be the notice before a stop.
func checkpointSignals() []string { return []string{"TERM", "INT", "HUP", "USR1", "USR2"} }

// Equipped reports whether the task asks for devices, a container or a checkpoint, which older nodes would leave out without a word.
func (t *Task) Equipped() bool {
	return t.Checkpoint != nil || t.Image != "" || t.Resources.NeedsGPU()
}

// CheckpointGrace is how long the task's program has to save its state after the notice.
func (t *Task) CheckpointGrace() time.Duration {
	switch {
	case t.Checkpoint != nil && t.Checkpoint.Grace > 0:
		return t.Checkpoint.Grace
	case t.Grace > 0:
		return min(t.Grace, MaxCheckpointGrace)
	}
	return DefaultGrace
}

// Policy returns the retries by which the task's trials are judged, its repeats among them.
func (t *Task) Policy() Retries {
	if t.Checkpoint == nil {
		return t.Retries
	}
	all := Retries{ClassPreempt: t.Checkpoint.Repeats}
	for c, n := range t.Retries {
		all[c] = n
	}
	return all
}

// Check says why a task can't save its state like this. The first field that is wrong counts.
func (c *Checkpoint) Check() error {
	switch {
	case c == nil:
		return nil
	case !slices.Contains(checkpointSignals(), c.Signal):
		return problem.Errorf("Use "+strings.Join(checkpointSignals(), ", ")+".", "checkpoint.signal is %.60q, which can't announce a stop", c.Signal)
	case c.Grace < 0 || c.Grace > MaxCheckpointGrace:
		return problem.Errorf("Give at most 10m.", "checkpoint.grace is %s", c.Grace)
	case c.Every < 0 || c.Quiet < 0:
		return problem.Errorf("Write them like 10m, or leave them out.", "checkpoint.every and checkpoint.quiet must not be below 0")
	case c.MaxSize <= 0:
		return problem.Errorf("Write it like 10GiB.", "checkpoint.max_size is %d", c.MaxSize)
	case c.Repeats < 0 || c.Repeats > MaxRepeats:
		return problem.Errorf("Give a whole number from 0 to 1000000.", "checkpoint.repeats is %d", c.Repeats)
	case c.OnTimeout != TimeoutFails && c.OnTimeout != TimeoutResumes:
		return problem.Errorf("Write fail or resume.", "checkpoint.on_timeout is %.60q", c.OnTimeout)
	}
	return nil
}

package grid

import (
	"slices"
	"strings"
	"time"

	"mlfnode/grid/problem"
)

// Checkpoint describes how a task saves its state, so that a stopped trial resumes from that state
// instead of starting over. Without a checkpoint, stopping a task sends TERM to all of its
// processes, and its trials start from the beginning.
type Checkpoint struct {
	Signal string        `json:"signal"` // notice sent before a stop, one of checkpointSignals
	Grace  time.Duration `json:"grace"`  // time between the notice and KILL
	// Interval between snapshots of a running attempt; 0 takes snapshots only when an attempt ends.
	Every time.Duration `json:"every,omitempty"`
	// How long the folder must be unchanged before a running attempt is snapshotted.
	Quiet   time.Duration `json:"quiet"`
	MaxSize int64         `json:"max_size"` // size of the largest snapshot that is stored, in bytes
	// How often a trial may exit with ExitSaved, or resume after its timeout.
	Repeats   int    `json:"repeats"`
	OnTimeout string `json:"on_timeout"` // what happens after a timeout: TimeoutFails or TimeoutResumes
}

// The values of Checkpoint.OnTimeout: a timeout fails the trial, or starts another attempt that
// resumes from the checkpoint.
const (
	TimeoutFails   = "fail"
	TimeoutResumes = "resume"
)

// ExitSaved is the exit code with which a program, without having been asked to stop, reports that
// it has saved its state and wants to run again. HTCondor uses the same code for self-checkpointing
// jobs.
const ExitSaved = 85

const (
	// MaxCheckpointGrace bounds the time that a program gets to save its state, because draining a
	// node waits for it.
	MaxCheckpointGrace = 10 * time.Minute
	// MaxRepeats bounds Checkpoint.Repeats.
	MaxRepeats = 1_000_000
)

// unreadableTime bounds the run time of an attempt whose failure is attributed to its saved state.
const unreadableTime = 5 * time.Minute

// Unreadable reports whether an attempt failed soon after its start because it could not read the
// state that it resumed from.
func (r *Result) Unreadable() bool {
	return r.Class == ClassCheckpoint && r.Usage.Wall < unreadableTime.Microseconds()
}

// DefaultCheckpoint returns the settings of a task that declares a checkpoint without details. A
// Grace of 0 means the task's own grace period.
func DefaultCheckpoint() Checkpoint {
	return Checkpoint{
		Signal: "TERM", Quiet: 10 * time.Second, MaxSize: 10 << 30, Repeats: 1000, OnTimeout: TimeoutFails,
	}
}

// checkpointSignals returns the signals that can announce a stop.
func checkpointSignals() []string { return []string{"TERM", "INT", "HUP", "USR1", "USR2"} }

// CheckpointGrace returns how long the task's program has to save its state after the notice.
func (t *Task) CheckpointGrace() time.Duration {
	switch {
	case t.Checkpoint != nil && t.Checkpoint.Grace > 0:
		return t.Checkpoint.Grace
	case t.Grace > 0:
		return min(t.Grace, MaxCheckpointGrace)
	}
	return DefaultGrace
}

// Check returns an error for the first invalid field.
func (c *Checkpoint) Check() error {
	switch {
	case c == nil:
		return nil
	case !slices.Contains(checkpointSignals(), c.Signal):
		return problem.Errorf("Use "+strings.Join(checkpointSignals(), ", ")+".",
			"checkpoint.signal is %.60q, which can't announce a stop", c.Signal)
	case c.Grace < 0 || c.Grace > MaxCheckpointGrace:
		return problem.Errorf("Give at most 10m.", "checkpoint.grace is %s", c.Grace)
	case c.Every < 0 || c.Quiet < 0:
		return problem.Errorf("Write them like 10m, or leave them out.",
			"checkpoint.every and checkpoint.quiet must not be below 0")
	case c.MaxSize <= 0:
		return problem.Errorf("Write it like 10GiB.", "checkpoint.max_size is %d", c.MaxSize)
	case c.Repeats < 0 || c.Repeats > MaxRepeats:
		return problem.Errorf("Give a whole number from 0 to 1000000.", "checkpoint.repeats is %d", c.Repeats)
	case c.OnTimeout != TimeoutFails && c.OnTimeout != TimeoutResumes:
		return problem.Errorf("Write fail or resume.", "checkpoint.on_timeout is %.60q", c.OnTimeout)
	}
	return nil
}

package grid

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"mlfnode/grid/space"
)

// RecordVersion is the version of the sweep record that this program writes.
const RecordVersion = 1

// Sweep is the durable record of one submission. Its size depends on the axes, not on the number of
// trials.
type Sweep struct {
	V  int     `json:"v"`
	ID SweepID `json:"id"`
	// Counts the submissions to a master, independently of its clock; 0 in older records.
	Number  int64  `json:"number,omitempty"`
	Project string `json:"project"`
	Name    string `json:"name,omitempty"` // chosen by the user
	// Identifies the submission, so that one that is sent twice creates one sweep.
	Token  string      `json:"token,omitempty"`
	Origin *Origin     `json:"origin,omitempty"`
	Task   Task        `json:"task"`
	Bundle string      `json:"bundle,omitempty"` // SHA-256 of the project's files, in hex; empty without files
	Space  space.Space `json:"space"`
	Long   bool        `json:"long,omitempty"` // the record is stored compressed, because its axes list many values
	State  SweepState  `json:"state"`
	// With SweepCancelled: running trials can save their state first, and a retry resumes from it.
	Save bool `json:"save,omitempty"`
	// With SweepPaused: running trials are stopped too, and run again on resume.
	Halt bool `json:"halt,omitempty"`

	// Pinned identifies the image of the first trial, for a task with an image: NAME@sha256:DIGEST,
	// or the ID of an image that no registry has. All further trials use the same image, even if
	// the task's name refers to another one by then.
	Pinned string `json:"pinned,omitempty"`

	// Updates give trials newer files than those of the submission; the last update of a trial
	// wins.
	Updates []Update `json:"updates,omitempty"`

	// Reopened is the sequence number of the last event that reopened a trial. The sweep does not
	// finish before that event is folded.
	Reopened uint64 `json:"reopened,omitempty"`

	// Accepted is how many trials had failed when the user resumed the sweep; they do not count
	// towards Task.StopAfter.
	Accepted int64 `json:"accepted,omitempty"`

	// Stopping lists running attempts that do worse than others, with Task.Stop: their nodes stop
	// them.
	Stopping []StoppedRun `json:"stopping,omitempty"`

	// Cancelling lists trials that a user has cancelled and that have not ended: nodes stop their
	// attempts and start none.
	Cancelling []int64 `json:"cancelling,omitempty"`

	Priority    int       `json:"priority,omitempty"`     // higher starts first
	MaxParallel int       `json:"max_parallel,omitempty"` // maximum number of concurrent trials; 0 means no limit
	Submitted   time.Time `json:"submitted"`
	Ended       time.Time `json:"ended,omitzero"`
	Paused      time.Time `json:"paused,omitzero"`    // start of the pause, with SweepPaused
	Removing    bool      `json:"removing,omitempty"` // the sweep is being deleted; its record no longer changes
	Problem     string    `json:"problem,omitempty"`  // why the master paused or cancelled the sweep

	// Environ is the environment of the shell that submitted the sweep, as KEY=value; if it is
	// empty, each node's own environment is used. EnvironAdded holds the user's additions. Both may
	// hold secrets: they are kept only in the store, which only its owner can read, and are never
	// shown.
	Environ      []string `json:"environ,omitempty"`
	EnvironAdded []string `json:"environ_added,omitempty"`
}

// longSpace is the JSON size of a space, in bytes, above which its record is stored compressed.
const longSpace = 512 << 10

// SetSpace sets the space of the sweep and marks the record as Long if the space lists many values.
func (s *Sweep) SetSpace(points space.Space) error {
	text, err := json.Marshal(points)
	if err != nil {
		return fmt.Errorf("measure the space: %w", err)
	}
	s.Space, s.Long = points, s.Long || len(text) > longSpace
	return nil
}

// Compare orders sweeps by submission, oldest first. The number decides, because clocks can be set
// back and sweeps can share a time. Records without a number precede those with one.
func (s *Sweep) Compare(t *Sweep) int {
	return cmp.Or(cmp.Compare(s.Number, t.Number), s.Submitted.Compare(t.Submitted), cmp.Compare(s.ID, t.ID))
}

// TaskName returns the task's qualified name, PROJECT.TASK.
func (s *Sweep) TaskName() string { return s.Project + "." + s.Task.Name }

// Active reports whether trials of the sweep are leased.
func (s *Sweep) Active() bool { return s.State == SweepRunning }

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

// Sweep is the durable record of one submission. It is as small as its axes are, whatever the size of its space.
type Sweep struct {
	V       int         `json:"v"`
	ID      SweepID     `json:"id"`
	Number  int64       `json:"number,omitempty"` // counts the submissions to a master, whatever its clock says; 0 in older records
	Project string      `json:"project"`
	Name    string      `json:"name,omitempty"`  // the user's own name for it
	Token   string      `json:"token,omitempty"` // of the submission, so that one that is sent twice makes one sweep
	Origin  *Origin     `json:"origin,omitempty"`
	Task    Task        `json:"task"`
	Bundle  string      `json:"bundle,omitempty"` // SHA-256 of the project's files, in hex; empty when there are none
	Space   space.Space `json:"space"`
	Long    bool        `json:"long,omitempty"` // the record is stored compressed, since its axes list so many values
	State   SweepState  `json:"state"`
	Save    bool        `json:"save,omitempty"` // with SweepCancelled: running trials may save their state first, which is kept for a retry
	Halt    bool        `json:"halt,omitempty"` // with SweepPaused: running trials are killed too, and run again on resume

	// Pinned names the image that the first trial ran in, of a task with one: NAME@sha256:DIGEST, or the ID of an image that no registry
	// has. All further trials run in the same, wherever the name in the task leads to by then.
	Pinned string `json:"pinned,omitempty"`

	// Updates give trials newer files than those of the submission; of several for one trial the last counts.
	Updates []Update `json:"updates,omitempty"`

	// Reopened is the sequence of the last event that had a trial run again. The sweep is not finished before it is followed.
	Reopened uint64 `json:"reopened,omitempty"`

	// Accepted is how many trials had failed when the user let the sweep go on; they do not count for Task.StopAfter.
	Accepted int64 `json:"accepted,omitempty"`

	// Stopping are running attempts that do worse than others, with Task.Stop: their nodes stop them.
	Stopping []StoppedRun `json:"stopping,omitempty"`

	// Cancelling are trials that a person has cancelled and that have not ended: nodes stop what runs of them, and begin none.
	Cancelling []int64 `json:"cancelling,omitempty"`

	Priority    int       `json:"priority,omitempty"`     // higher goes first
	MaxParallel int       `json:"max_parallel,omitempty"` // most trials at a time; 0 is no limit
	Submitted   time.Time `json:"submitted"`
	Ended       time.Time `json:"ended,omitzero"`
	Paused      time.Time `json:"paused,omitzero"`    // since when, with SweepPaused
	Removing    bool      `json:"removing,omitempty"` // all of it is being removed: nothing changes it any more
	Problem     string    `json:"problem,omitempty"`  // why the master has paused or cancelled it

	// Environ is the environment of the shell that submitted the sweep, as KEY=value; empty means that of each node.
	// EnvironAdded is what the user added to either. Both may hold secrets: they are kept only in the store, which is
	// readable by its owner alone, and never shown.
	Environ      []string `json:"environ,omitempty"`
	EnvironAdded []string `json:"environ_added,omitempty"`
}

// longSpace is how many bytes of JSON the space of a sweep has at most whose record is stored as it is.
const longSpace = 512 << 10

// SetSpace sets the space of the sweep. A sweep whose space lists many values is stored as a long one from then on.
func (s *Sweep) SetSpace(points space.Space) error {
	text, err := json.Marshal(points)
	if err != nil {
		return fmt.Errorf("measure the space: %w", err)
	}
	s.Space, s.Long = points, s.Long || len(text) > longSpace
	return nil
}

// Compare orders sweeps by submission, the oldest first. The number decides: clocks are set back, and sweeps of one moment have one
// time. Records without a number are older than those with one.
func (s *Sweep) Compare(t *Sweep) int {
	return cmp.Or(cmp.Compare(s.Number, t.Number), s.Submitted.Compare(t.Submitted), cmp.Compare(s.ID, t.ID))
}

// TaskName names the task in its project, as PROJECT.TASK.
func (s *Sweep) TaskName() string { return s.Project + "." + s.Task.Name }

// Active reports whether trials of the sweep are to be leased.
func (s *Sweep) Active() bool { return s.State == SweepRunning }

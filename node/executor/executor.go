// Package executor defines what runs attempts: an executor starts a program, follows it to its end and reports truthfully how it
// ended. Package process runs programs as processes of this machine, package docker runs them in containers, and package shim has
// either outlive the node agent. Mux chooses between the first two for each attempt.
//
// An Executor hands out Slots. A Slot runs one attempt at a time and keeps what is expensive to make (an OS thread, a cgroup)
// between attempts. When Slot.Run returns, the whole process tree of the attempt is gone, whatever the program did to escape:
// no orphan outlives its attempt.
//
// The suite in executortest holds for every implementation.
package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"mlfnode/grid"
)

// Executor hands out slots. It may be called from many goroutines.
type Executor interface {
	// Slot makes a slot. The caller closes it.
	Slot() (Slot, error)
}

// Slot runs attempts, one at a time.
type Slot interface {
	// Run runs the attempt and returns when nothing of it is left running. Cancelling ctx stops it: the cause of the
	// cancellation decides the class (see ErrCancelled, ErrHalted, ErrKill).
	Run(ctx context.Context, a *Attempt) Outcome
	// Close gives back what the slot holds. It must not be called during Run.
	Close() error
}

// Spec is the part of an attempt that is plain data. It crosses to another process as it is, so its JSON names are those of
// the shim's protocol and of files that outlive this program: fields are added, never renamed.
type Spec struct {
	// Name names the run for good, for an executor whose programs outlive this process. A run without one does not outlive it.
	Name string `json:"name,omitempty"`
	// Record is the absolute path of a file for the Outcome. Such an executor writes it when nobody is there to be told.
	Record string `json:"record,omitempty"`
	Dir    string `json:"dir"` // absolute working directory

	Memory      int64         `json:"memory,omitempty"`  // bytes for the whole tree, enforced where cgroups allow; 0 is no limit
	Timeout     time.Duration `json:"timeout,omitempty"` // longest run; 0 is no limit
	IdleTimeout time.Duration `json:"idle,omitempty"`    // longest time without output; 0 is no limit
	Grace       time.Duration `json:"grace,omitempty"`   // between the notice and KILL; 0 is grid.DefaultGrace
	// OutputLimit is how many bytes of both streams together are stored; 0 is no limit. The rest is counted, and only its
	// last lines are kept.
	OutputLimit int64 `json:"limit,omitempty"`

	// Notice is the signal by which the main program alone, and none of what it has started, hears of a stop after which the trial
	// goes on: it then has NoticeGrace to save its state and end. 0, and a stop that is final, is TERM to the whole tree and Grace.
	Notice      syscall.Signal `json:"notice,omitempty"`
	NoticeGrace time.Duration  `json:"notice_grace,omitempty"` // 0 is Grace
	// NoticeTimeout has the notice come before a stop by Timeout too.
	NoticeTimeout bool `json:"notice_timeout,omitempty"`
	// Devices are the UUIDs of the GPUs and MIG instances that the attempt may use.
	Devices []string `json:"devices,omitempty"`
	// Container has the program run in a container; nil is a process of this machine.
	Container *Container `json:"container,omitempty"`
}

// Attempt is one run of a program. The executor does not change it.
type Attempt struct {
	Spec
	Argv   []string // program and arguments; a name without a slash is looked up in the PATH of Env
	Env    []string // the complete environment, KEY=value; of entries with one name the last counts; MLF_TOKEN and MLF_RUN are set by the executor
	Stdout *os.File // opened by the caller, for appending; the program gets a pipe that ends in it
	Stderr *os.File // as Stdout, and may be the same file

	Started func(Begun)     // called once the program has been started; may be nil
	Kill    <-chan struct{} // closing it after ctx is cancelled cuts the grace short; may be nil
}

// Begun says which program has been started.
type Begun struct {
	PID       int    // of the main process, as this machine numbers it
	Container string // the engine's id of its container; empty for a process
}

// Outcome is how an attempt ended.
type Outcome struct {
	Class      grid.Class // grid.ClassNone is success: the program ended by itself with exit code 0
	ExitCode   int        // exit code; 128 + signal; 126 or 127 when the program could not be started; grid.NoExit
	Reason     string     // for a person; empty on success
	Start, End time.Time
	Usage      grid.Usage
	Cut        int64 // bytes of output that are not stored: over the limit, or because the files could not be written
	// Kept is, when output was cut, how much of Stdout and of Stderr was stored before. Tail is the last of what was cut.
	Kept      [2]int64
	Tail      [2]string
	Leftovers int // processes that outlived the program and had to be stopped
	// Foreign describes processes of other users that go on, because nobody here may end them; empty for none.
	Foreign string
	Left    bool // it has not ended: the program goes on without us, see ErrLeave; nothing else is set
}

// Causes of cancellation that Run tells apart with errors.Is; any other cause counts as ErrHalted. A cause may wrap ErrKill
// and one of the others.
var (
	ErrCancelled = errors.New("cancelled") // the user cancelled the trial: grid.ClassCancel
	// ErrCancelledSaving is ErrCancelled for a trial that may save its state first.
	ErrCancelledSaving = fmt.Errorf("%w, after saving", ErrCancelled)
	ErrHalted          = errors.New("stopped to go on later") // the node stops in good order: grid.ClassHalt
	ErrLost            = errors.New("lease lost")             // another node may run it now: grid.ClassLost
	ErrKill            = errors.New("killed")                 // no TERM and no grace: KILL at once
	// ErrLeave has Run return at once and leave the program to the next agent. An executor whose programs end with this
	// process, and an attempt without a name, take it for ErrHalted.
	ErrLeave = errors.New("left to the next node agent")
)

// Noticed reports whether the program is to hear of a stop by its notice, and how long it has then.
func (a *Attempt) Noticed(class grid.Class, saving bool) (bool, time.Duration) {
	if a.Notice == 0 || class != grid.ClassHalt && !saving && (class != grid.ClassTimeout || !a.NoticeTimeout) {
		return false, a.GracePeriod()
	}
	return true, cmp.Or(a.NoticeGrace, a.GracePeriod())
}

// GracePeriod is how long the tree may take to end after TERM.
func (s *Spec) GracePeriod() time.Duration {
	if s.Grace <= 0 {
		return grid.DefaultGrace
	}
	return s.Grace
}

// Package executor defines what runs attempts. An executor starts a program, follows it to its end
// and reports truthfully how it ended. Package process runs programs as processes of this machine,
// package docker runs them in containers, and package shim lets both outlive the node agent. Mux
// chooses a process or a container for each attempt.
//
// An Executor provides Slots. A Slot runs one attempt at a time and keeps what is expensive to make
// (an OS thread, a cgroup) between attempts. When Slot.Run returns, the whole process tree of the
// attempt is gone, whatever the program did to escape: no orphan outlives its attempt.
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

// Executor provides slots. It is safe for concurrent use.
type Executor interface {
	// Slot creates a slot. The caller closes it.
	Slot() (Slot, error)
}

// Slot runs attempts, one at a time.
type Slot interface {
	// Run runs the attempt and returns when nothing of it is running any more. Cancelling ctx stops
	// the attempt; the cause of the cancellation determines the class (see ErrCancelled, ErrHalted,
	// ErrKill).
	Run(ctx context.Context, a *Attempt) Outcome
	// Close releases what the slot holds. It must not be called during Run.
	Close() error
}

// Spec is the part of an attempt that is plain data. It is sent to other processes as it is, so its
// JSON names are part of the shim's protocol and of files that outlive this program: fields are
// added, never renamed.
type Spec struct {
	// Name identifies the run for good, for an executor whose programs outlive this process. A run
	// without a name does not outlive it.
	Name string `json:"name,omitempty"`
	// Record is the absolute path of a file for the Outcome. Such an executor writes it if no agent
	// is there to receive the outcome.
	Record string `json:"record,omitempty"`
	Dir    string `json:"dir"` // absolute working directory

	// bytes for the whole tree, enforced where cgroups allow; 0 means no limit
	Memory      int64         `json:"memory,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"` // longest run; 0 means no limit
	IdleTimeout time.Duration `json:"idle,omitempty"`    // longest time without output; 0 means no limit
	Grace       time.Duration `json:"grace,omitempty"`   // between TERM and KILL; 0 means grid.DefaultGrace
	// OutputLimit is how many bytes of both streams together are stored; 0 means no limit. The rest
	// is counted, and only its last lines are kept.
	OutputLimit int64 `json:"limit,omitempty"`

	// Notice is the signal that announces a stop after which the trial goes on. Only the program
	// itself receives it, not the processes that it has started; it then has NoticeGrace to save
	// its state and end. If Notice is 0, and for a final stop, the whole tree receives TERM and has
	// Grace.
	Notice      syscall.Signal `json:"notice,omitempty"`
	NoticeGrace time.Duration  `json:"notice_grace,omitempty"` // 0 means Grace
	// NoticeTimeout sends the notice before a stop by Timeout, too.
	NoticeTimeout bool `json:"notice_timeout,omitempty"`
	// Devices are the UUIDs of the GPUs and MIG instances that the attempt may use.
	Devices []string `json:"devices,omitempty"`
	// Container describes the container that the program runs in; nil means a process of this
	// machine.
	Container *Container `json:"container,omitempty"`
}

// Attempt is one run of a program. The executor does not change it.
type Attempt struct {
	Spec
	Argv []string // program and arguments; a name without a slash is looked up in the PATH of Env
	// Env is the complete environment, KEY=value. Of several entries with the same name the last
	// counts. The executor adds MLF_TOKEN and MLF_RUN.
	Env    []string
	Stdout *os.File // opened by the caller, for appending; the program gets a pipe that is copied to it
	Stderr *os.File // as Stdout, and may be the same file

	Started func(Program)   // called once the program has been started; may be nil
	Kill    <-chan struct{} // closing it after ctx is cancelled cuts the grace short; may be nil
}

// Program identifies a program that has been started.
type Program struct {
	PID       int    // of its first process, in this machine's PID namespace
	Container string // the engine's id of its container; empty for a process
}

// Outcome is how an attempt ended.
type Outcome struct {
	Class      grid.Class // grid.ClassNone is success: the program ended by itself with exit code 0
	ExitCode   int        // exit code; 128 + signal; 126 or 127 if the program could not be started; grid.NoExit
	Reason     string     // for a person; empty on success
	Start, End time.Time
	Usage      grid.Usage
	// bytes of output that were not stored: beyond the limit, or because the files could not be
	// written
	Cut int64
	// Kept is how much of Stdout and of Stderr was stored before output was cut. Tail is the end of
	// what was cut.
	Kept      [2]int64
	Tail      [2]string
	Leftovers int // processes that outlived the program and had to be stopped
	// Foreign describes processes of other users that go on because this executor may not end them;
	// empty if there are none.
	Foreign string
	Left    bool // the program has not ended and goes on without us, see ErrLeave; no other field is set
}

// Causes of cancellation that Run tells apart with errors.Is; any other cause counts as ErrHalted.
// A cause may wrap ErrKill and one of the others.
var (
	ErrCancelled = errors.New("cancelled") // the user cancelled the trial: grid.ClassCancel
	// ErrCancelledSaving is ErrCancelled for a trial that may save its state first.
	ErrCancelledSaving = fmt.Errorf("%w, after saving", ErrCancelled)
	ErrHalted          = errors.New("stopped to go on later") // the node stops in good order: grid.ClassHalt
	ErrLost            = errors.New("lease lost")             // another node may run it now: grid.ClassLost
	ErrKill            = errors.New("killed")                 // no TERM and no grace: KILL immediately
	// ErrLeave makes Run return immediately and leave the program to the next agent. It counts as
	// ErrHalted for an attempt without a name, and in an executor whose programs end with this
	// process.
	ErrLeave = errors.New("left to the next node agent")
)

// NoticePeriod reports whether a stop is announced to the program by its notice, and how long the
// program has to end.
func (a *Attempt) NoticePeriod(class grid.Class, saving bool) (bool, time.Duration) {
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

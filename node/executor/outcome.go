package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// Exit codes of a program that could not be started, as shells give them.
const (
	ExitNotRunnable = 126
	ExitNotFound    = 127
)

// SignalBase is added to a signal's number to make an exit code, as shells do.
const SignalBase = 128

// SignalName returns the name of a signal, such as SIGTERM.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// ExitVerdict returns the class and the reason for an exit code which tells only by convention
// whether a signal ended the program.
func ExitVerdict(code int) (class grid.Class, reason string) {
	if s := syscall.Signal(code - SignalBase); unix.SignalName(s) != "" {
		return grid.ClassSignal, "killed by " + SignalName(s)
	}
	if code != 0 {
		return grid.ClassExit, fmt.Sprintf("exit code %d", code)
	}
	return grid.ClassNone, ""
}

// Refused is the outcome of an attempt whose program never ran, for a reason that is not the
// program's.
func Refused(class grid.Class, reason string) Outcome {
	now := time.Now()
	return Outcome{Class: class, Reason: reason, ExitCode: ExitNotRunnable, Start: now, End: now}
}

// Unstarted is the outcome of an attempt that was stopped, by the end of ctx, before its program
// ran.
func Unstarted(ctx context.Context) Outcome {
	o := Refused(StopVerdict(context.Cause(ctx)))
	o.ExitCode = grid.NoExit
	return o
}

// StopVerdict returns the class and the reason of an attempt that was stopped, by the cause of its
// context's end.
func StopVerdict(cause error) (grid.Class, string) {
	switch {
	case errors.Is(cause, ErrCancelled):
		return grid.ClassCancel, "cancelled"
	case errors.Is(cause, ErrLost):
		return grid.ClassLost, "stopped, because the trial may run on another node now"
	}
	return grid.ClassHalt, "stopped, to run again later"
}

// TimedOut is the reason of an attempt that ran for longer than its limit.
func TimedOut(limit time.Duration) string { return "ran longer than its limit of " + brief(limit) }

// Silent is the reason of an attempt that printed nothing for longer than its limit.
func Silent(limit time.Duration) string {
	return fmt.Sprintf("printed nothing for %s, its limit", brief(limit))
}

// OutOfMemory is the reason of an out-of-memory kill.
func OutOfMemory(limit, peak int64) string {
	if limit <= 0 {
		return fmt.Sprintf("ran out of memory: the kernel killed it when it used %s", humanize.IBytes(uint64(peak)))
	}
	return fmt.Sprintf("ran out of memory: its limit is %s and it used %s", humanize.IBytes(uint64(limit)),
		humanize.IBytes(uint64(peak)))
}

// brief formats 2h as "2h" instead of "2h0m0s".
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

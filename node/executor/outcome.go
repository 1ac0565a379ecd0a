package executor

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// signalBase is added to a signal's number to make an exit code, as shells do.
const signalBase = 128

// ending turns a wait status into exit code, class and words.
func ending(ws syscall.WaitStatus) (code int, class grid.Class, reason string) {
	switch {
	case ws.Signaled():
		reason = "killed by " + signalName(ws.Signal())
		if ws.CoreDump() {
			reason += " (core dumped)"
		}
		return signalBase + int(ws.Signal()), grid.ClassSignal, reason
	case ws.ExitStatus() != 0:
		return ws.ExitStatus(), grid.ClassExit, fmt.Sprintf("exit code %d", ws.ExitStatus())
	}
	return 0, grid.ClassNone, ""
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// Ended gives class and words of an exit code from which the signals that ended a program can be told by convention alone.
func Ended(code int) (class grid.Class, reason string) {
	if s := syscall.Signal(code - signalBase); unix.SignalName(s) != "" {
		return grid.ClassSignal, "killed by " + signalName(s)
	}
	if code != 0 {
		return grid.ClassExit, fmt.Sprintf("exit code %d", code)
	}
	return grid.ClassNone, ""
}

// Verdict gives class and words of an attempt that was stopped, by the cause of its context's end.
func Verdict(cause error) (grid.Class, string) {
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
	return fmt.Sprintf("ran out of memory: its limit is %s and it used %s", humanize.IBytes(uint64(limit)), humanize.IBytes(uint64(peak)))
}

// brief writes 2h as "2h" instead of "2h0m0s".
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

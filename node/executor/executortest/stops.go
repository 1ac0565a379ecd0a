package executortest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// stubborn is a tree that ignores TERM, as far as it can.
const stubborn = "trap '' TERM; (setsid sh -c 'while :; do sleep 1000; done' &) ; echo >ready; while :; do sleep 1000; done"

func timeout(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	a := s.script("sleep 1000 & sleep 1000")
	a.Timeout = 100 * time.Millisecond
	o := s.run(t.Context(), a)
	s.expect(o, grid.ClassTimeout, 128+15, "ran longer than its limit of 100ms")
	if o.Usage.Wall < 100_000 {
		t.Errorf("wall: got %d µs, want at least 100000", o.Usage.Wall)
	}
	a = s.script("exit 0")
	a.Timeout = time.Hour
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
}

func stubbornTree(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	a := s.script(stubborn)
	a.Timeout, a.Grace = 200*time.Millisecond, 50*time.Millisecond
	o := s.run(t.Context(), a)
	if _, err := os.Stat(s.path("ready")); err != nil { // on a busy machine it had not got to ignoring TERM
		o.ExitCode = 128 + 9
	}
	s.expect(o, grid.ClassTimeout, 128+9, "limit of 200ms")
}

func idleTimeout(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	a := s.script("echo a; echo b >&2; sleep 1000")
	a.IdleTimeout = 200 * time.Millisecond
	s.expect(s.run(t.Context(), a), grid.ClassIdle, 128+15, "printed nothing for 200ms, its limit")
}

func busyProgram(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	a := s.script("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; echo $i >&2; sleep 0.1; done")
	a.IdleTimeout = 800 * time.Millisecond
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
}

func cancelBefore(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(executor.ErrCancelled)
	s.expect(s.run(ctx, s.script("echo >ran")), grid.ClassCancel, grid.NoExit, "cancelled")
	if _, err := os.Stat(s.path("ran")); err == nil {
		t.Error("the program ran although it was cancelled before")
	}
	s.expect(s.run(t.Context(), s.script("exit 0")), grid.ClassNone, 0, "")
}

func cancelRunning(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	o := s.runThen(ctx, s.script("setsid sleep 1000 & echo >ready; sleep 1000"), func() {
		cancel(executor.ErrCancelled)
		cancel(executor.ErrKill) // a second cancellation changes nothing
	})
	s.expect(o, grid.ClassCancel, 128+15, "cancelled")
	s.expect(s.run(t.Context(), s.script("exit 0")), grid.ClassNone, 0, "")
}

func causes(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	for cause, class := range map[error]grid.Class{
		executor.ErrCancelled:                            grid.ClassCancel,
		executor.ErrHalted:                               grid.ClassHalt,
		executor.ErrLost:                                 grid.ClassLost,
		errors.New("something else"):                     grid.ClassHalt,
		fmt.Errorf("by user: %w", executor.ErrCancelled): grid.ClassCancel,
	} {
		os.Remove(s.path("ready"))
		ctx, cancel := context.WithCancelCause(t.Context())
		o := s.runThen(ctx, s.script("echo >ready; exec sleep 1000"), func() { cancel(cause) })
		s.expect(o, class, 128+15, "")
	}
}

func killAtOnce(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	a := s.script(stubborn)
	a.Grace = time.Hour
	o := s.runThen(ctx, a, func() { cancel(fmt.Errorf("%w: %w", executor.ErrKill, executor.ErrCancelled)) })
	s.expect(o, grid.ClassCancel, 128+9, "cancelled")
	// the kill does not reach the slot's next attempt
	s.expect(s.run(t.Context(), s.script("sleep 0.1; exit 3")), grid.ClassExit, 3, "")
}

func killDuringGrace(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	kill := make(chan struct{})
	a := s.script(`trap 'echo >term' TERM; echo >ready; while :; do sleep 0.01; done`)
	a.Grace, a.Kill = time.Hour, kill
	o := s.runThen(ctx, a, func() {
		cancel(executor.ErrHalted)
		s.await("term")
		close(kill)
	})
	s.expect(o, grid.ClassHalt, 128+9, "")
}

// politeEnd checks that a program that exits with 0 because it was told to end has not succeeded.
func politeEnd(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	o := s.runThen(ctx, s.script("trap 'exit 0' TERM; echo >ready; while :; do sleep 0.01; done"), func() {
		cancel(executor.ErrCancelled)
	})
	s.expect(o, grid.ClassCancel, 0, "cancelled")
}

func stoppedProgram(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	o := s.runThen(ctx, s.script("echo >ready; kill -STOP $$; sleep 1000"), func() { cancel(executor.ErrCancelled) })
	s.expect(o, grid.ClassCancel, 128+15, "cancelled")
}

// notice checks that a signal of the attempt's own reaches only the program, which then ends its
// tree itself.
func notice(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	for _, signal := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGINT} {
		os.Remove(s.path("ready"))
		ctx, cancel := context.WithCancelCause(t.Context())
		a := s.script(`child='for s in USR1 TERM INT; do trap "echo $s >>child" $s; done; while :; do sleep 0.01; done'
sh -c "$child" & child=$!
for s in USR1 TERM INT; do trap "echo $s >main; kill -KILL $child; exit 85" $s; done
echo >ready; while :; do sleep 0.01; done`)
		a.Notice, a.Grace = signal, time.Minute
		o := s.runThen(ctx, a, func() { cancel(executor.ErrHalted) })
		s.expect(o, grid.ClassHalt, 85, "")
		if got, want := "SIG"+s.read("main"), unix.SignalName(signal)+"\n"; got != want {
			t.Errorf("the program got %q, want %q", got, want)
		}
		if _, err := os.Stat(s.path("child")); err == nil {
			t.Errorf("%v: its child got %q, want nothing", signal, s.read("child"))
		}
	}
}

// ignoredNotice checks that the whole tree is killed after the grace, also if the program is
// stopped.
func ignoredNotice(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	for _, script := range []string{"trap '' USR1; " + stubborn,
		"trap 'echo >heard' USR1; echo >ready; kill -STOP $$; while :; do sleep 0.01; done"} {
		os.Remove(s.path("ready"))
		ctx, cancel := context.WithCancelCause(t.Context())
		a := s.script(script)
		a.Notice, a.Grace = syscall.SIGUSR1, 300*time.Millisecond
		o := s.runThen(ctx, a, func() { cancel(executor.ErrCancelledSaving) })
		s.expect(o, grid.ClassCancel, 128+9, "cancelled")
	}
	s.await("heard")
}

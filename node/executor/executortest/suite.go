// Package executortest is the conformance suite of executors: what every implementation promises,
// tested from outside.
//
//	func TestConformance(t *testing.T) {
//		executortest.Run(t, func(t *testing.T) executor.Executor { … })
//	}
//
// The programs are small shell scripts. To tell whether a process of a tree is still alive, every
// process of the tree inherits the writing end of a fifo: reading from the fifo ends exactly when
// the last of them is gone, wherever they run.
package executortest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// Factory creates an executor and registers its Close with t.Cleanup.
type Factory func(t *testing.T) executor.Executor

// Limiter is an executor that knows whether it enforces memory limits. Others are assumed to
// enforce them.
type Limiter interface {
	// Limits reports whether Attempt.Memory is enforced.
	Limits() bool
}

// testTimeout is the longest that anything in the suite may take.
const testTimeout = 60 * time.Second

// Kit adapts the suite to an executor.
type Kit struct {
	New Factory
	// Prepare completes an attempt whose folder is dir; may be nil.
	Prepare func(dir string, a *executor.Attempt)
	// Contained is set if programs run in namespaces of their own: what a program leaves behind
	// ends with it and is not counted.
	Contained bool
	// Differs names the tests that can't hold for this executor, each with the reason.
	Differs map[string]string
}

// withKit is an executor with its kit.
type withKit struct {
	executor.Executor
	kit *Kit
}

// Limits implements Limiter.
func (k *withKit) Limits() bool {
	l, ok := k.Executor.(Limiter)
	return !ok || l.Limits()
}

// Run runs the whole suite for processes, each test with an executor of its own.
func Run(t *testing.T, factory Factory) { RunKit(t, &Kit{New: factory}) }

// RunKit runs the whole suite, each test with an executor of its own.
func RunKit(t *testing.T, kit *Kit) {
	tests := map[string]func(*testing.T, executor.Executor){
		"exit codes": exitCodes, "signals": signals,
		"refusals": refusals, "open for writing": openForWriting, "lookup": lookups, "huge arguments": hugeArguments,
		"background child": backgroundChild, "session leader": sessionLeader, "daemon": daemon,
		"nested cgroups": nestedCgroups, "stubborn leftover": stubbornLeftover,
		"timeout": timeout, "timeout of a stubborn tree": stubbornTree, "idle timeout": idleTimeout,
		"idle timeout of a busy program": busyProgram,
		"cancel before start":            cancelBefore, "cancel": cancelRunning, "causes": causes,
		"kill during grace": killDuringGrace,
		"kill at once":      killAtOnce, "exit code 0 after cancel": politeEnd, "stopped program": stoppedProgram,
		"notice": notice, "ignored notice": ignoredNotice,
		"large output": largeOutput, "binary output": binaryOutput, "appending": appending,
		"output by name": outputByName, "output at the end": outputAtTheEnd, "output that others hold": heldOutput,
		"output limit": outputLimit,
		"environment":  environment, "environment names a variable twice": environmentTwice, "open files": openFiles,
		"signal dispositions": dispositions, "started": started,
		"cpu": cpuUsage, "memory": memoryUsage, "memory limit": memoryLimit, "memory limit is lifted": memoryLifted,
		"no leaks": noLeaks, "neighbours": neighbours,
	}
	for name := range kit.Differs {
		if tests[name] == nil {
			t.Errorf("there is no test %q that could differ", name)
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if why := kit.Differs[name]; why != "" {
				t.Log("differs by nature: " + why)
				return
			}
			test(t, &withKit{Executor: kit.New(t), kit: kit})
		})
	}
}

// harness is a slot with a folder, and files for output.
type harness struct {
	*testing.T
	kit  *Kit
	slot executor.Slot
	dir  string
}

func newHarness(t *testing.T, e executor.Executor) *harness {
	t.Helper()
	slot, err := e.Slot()
	if err != nil {
		t.Fatalf("make slot: %v", err)
	}
	t.Cleanup(func() {
		if err := slot.Close(); err != nil {
			t.Errorf("close slot: %v", err)
		}
	})
	return &harness{T: t, kit: e.(*withKit).kit, slot: slot, dir: t.TempDir()}
}

// attempt returns an attempt of a program with output files.
func (s *harness) attempt(argv ...string) *executor.Attempt {
	s.Helper()
	a := &executor.Attempt{
		Spec: executor.Spec{Dir: s.dir, Grace: 5 * time.Second},
		Argv: argv, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir},
		Stdout: s.file("stdout"), Stderr: s.file("stderr"),
	}
	if s.kit.Prepare != nil {
		s.kit.Prepare(s.dir, a)
	}
	return a
}

// script returns an attempt of a shell script. The fifo `alive` is open in every process of its
// tree.
func (s *harness) script(text string) *executor.Attempt {
	s.Helper()
	if err := syscall.Mkfifo(s.path("alive"), 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		s.Fatalf("make fifo: %v", err)
	}
	return s.attempt("/bin/sh", "-c", "exec 9>alive\n"+text)
}

func (s *harness) path(name string) string { return filepath.Join(s.dir, name) }

// file opens a file for appending until the test ends.
func (s *harness) file(name string) *os.File {
	s.Helper()
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.Fatalf("open output: %v", err)
	}
	s.Cleanup(func() { f.Close() })
	return f
}

func (s *harness) read(name string) string {
	s.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		s.Fatalf("read %s: %v", name, err)
	}
	return string(b)
}

// run runs an attempt to its end and checks what holds for all of them.
func (s *harness) run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	s.Helper()
	alive := s.watchTree()
	before := time.Now()
	o := s.slot.Run(ctx, a)
	if o.Start.Before(before) || o.End.Before(o.Start) || o.End.After(time.Now()) {
		s.Errorf("times: got start %v, end %v within [%v, now]", o.Start, o.End, before)
	}
	if (o.Class == grid.ClassNone) != (o.Reason == "") {
		s.Errorf("reason: got %q for class %q", o.Reason, o.Class)
	}
	if o.Class == grid.ClassNone && o.ExitCode != 0 {
		s.Errorf("success with exit code %d", o.ExitCode)
	}
	alive()
	return o
}

// watchTree returns a func that fails the test if a process of the tree is alive when it is called.
func (s *harness) watchTree() func() {
	s.Helper()
	f, err := os.OpenFile(s.path("alive"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return func() {}
	}
	if err != nil {
		s.Fatalf("open fifo: %v", err)
	}
	return func() {
		defer f.Close()
		conn, err := f.SyscallConn()
		if err != nil {
			s.Fatalf("read fifo: %v", err)
		}
		var n int
		var rerr error
		conn.Read(func(fd uintptr) bool {
			n, rerr = syscall.Read(int(fd), make([]byte, 1))
			return true
		})
		if n != 0 || rerr != nil {
			s.Errorf("a process of the tree is still alive after Run (read %d bytes, %v)", n, rerr)
		}
	}
}

// expect checks how an attempt ended; reason is a part of the Outcome's reason.
func (s *harness) expect(o executor.Outcome, class grid.Class, code int, reason string) {
	s.Helper()
	if o.Class != class || o.ExitCode != code || !strings.Contains(o.Reason, reason) {
		s.Errorf("outcome: got class %q, exit code %d, reason %q; want %q, %d, …%s…", o.Class, o.ExitCode, o.Reason,
			class, code, reason)
	}
}

// await waits until the program has written the file.
func (s *harness) await(name string) {
	s.Helper()
	s.until("file "+name, func() bool {
		_, err := os.Stat(s.path(name))
		return err == nil
	})
}

// until waits for a condition.
func (s *harness) until(what string, ok func() bool) {
	s.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(testTimeout)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			s.Fatalf("waited %v without success for: %s", testTimeout, what)
		}
	}
}

// runThen runs an attempt, calls act once the program has written the file `ready`, and returns the
// outcome.
func (s *harness) runThen(ctx context.Context, a *executor.Attempt, act func()) executor.Outcome {
	s.Helper()
	done := make(chan executor.Outcome, 1)
	go func() { done <- s.run(ctx, a) }()
	s.await("ready")
	act()
	return <-done
}

package shim

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/executortest"
	"mlfnode/node/executor/process"
)

// TestMain makes the test binary a shim, an agent, or the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == Command || os.Args[1] == FormerCommand) {
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM)
		os.Exit(Main(os.Args[2:], signals, os.Stderr))
	}
	if dir, ok := os.LookupEnv(agentVar); ok {
		os.Exit(agent(dir))
	}
	goleak.VerifyTestMain(m)
}

// limit is the longest that a test waits for one thing.
const limit = 30 * time.Second

// choices are the ways of holding trees that this machine may have.
var choices = []process.Cgroups{process.CgroupsV1, process.CgroupsV2, process.CgroupsOff}

// logTo logs into the test's output.
func logTo(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// token returns a token that only this test uses.
func token(t testing.TB) string {
	return fmt.Sprintf("shim-test-%d-%x", os.Getpid(), time.Now().UnixNano())
}

func options(t testing.TB) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "shims"), Token: token(t), Logger: logTo(t)}
}

func open(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// started opens a client with a shim, closes it at the end of the test and checks that nothing is
// left.
func started(t testing.TB, o Options) *Client {
	t.Helper()
	c := open(t, o)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		nothingLeft(t, o)
	})
	return c
}

// nothingLeft checks for processes, folders and cgroups of shims.
func nothingLeft(t testing.TB, o Options) {
	t.Helper()
	if dirs, err := shimDirsIn(o.Dir); err != nil || len(dirs) > 0 {
		t.Errorf("shims' folders: got %v, %v; want none", dirs, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/mlfnode-%s*", "/sys/fs/cgroup/*/mlfnode-%s*",
		"/sys/fs/cgroup/*/*/mlfnode-%s*", "/sys/fs/cgroup/*/*/*/mlfnode-%s*"} {
		if left, _ := filepath.Glob(fmt.Sprintf(pattern, o.Token)); len(left) > 0 {
			t.Errorf("cgroups left: %q", left)
		}
	}
	if pids := marked(o.Token); len(pids) > 0 {
		t.Errorf("processes left: %v", pids)
	}
}

// marked lists the processes that carry the token.
func marked(token string) (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range all {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), "MLF_TOKEN="+token) {
			pids = append(pids, file)
		}
	}
	return pids
}

func TestConformance(t *testing.T) {
	for _, choice := range choices {
		t.Run(string(choice), func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executor.Executor {
				o := options(t)
				o.Cgroups = choice
				return started(t, o)
			})
		})
	}
}

// script returns an attempt of a shell script with a name, in a folder of its own.
func script(t testing.TB, dir, name, text string) *executor.Attempt {
	t.Helper()
	a := &executor.Attempt{
		Argv: []string{"/bin/sh", "-c", text}, Env: []string{"PATH=" + os.Getenv("PATH")},
		Spec: executor.Spec{Name: name, Record: filepath.Join(dir, "outcome.json"), Dir: dir, Grace: 5 * time.Second},
	}
	for stream, f := range map[string]**os.File{"stdout": &a.Stdout, "stderr": &a.Stderr} {
		file, err := os.OpenFile(filepath.Join(dir, stream), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		*f = file
	}
	return a
}

func slotOf(t testing.TB, c *Client) executor.Slot {
	t.Helper()
	s, err := c.Slot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// eventually polls until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %v in vain for: %s", limit, what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func expect(t testing.TB, o executor.Outcome, class grid.Class, code int, reason string) {
	t.Helper()
	if o.Class != class || o.ExitCode != code || !strings.Contains(o.Reason, reason) || o.Left {
		t.Errorf("outcome: got %+v; want class %q, exit code %d, reason …%s…", o, class, code, reason)
	}
}

func receive[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(limit):
		t.Fatalf("waited %v in vain: %s", limit, what)
		panic("unreachable")
	}
}

func background(s executor.Slot, ctx context.Context, a *executor.Attempt) <-chan executor.Outcome {
	done := make(chan executor.Outcome, 1)
	go func() { done <- s.Run(ctx, a) }()
	return done
}

// Package guarantees tests, on the real program and under faults, what mlfnode promises: one test
// for each guarantee of the design, under its name.
package guarantees

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// program is the binary under test, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(gridtest.RunWithProgram(m, &program))
}

// home is a user's home with a state folder of its own.
type home struct {
	t   *testing.T
	dir string
	env []string
}

func newHome(t *testing.T, extra ...string) *home {
	dir := t.TempDir()
	env := []string{"HOME=" + dir, "XDG_STATE_HOME=" + filepath.Join(dir, "state"),
		"PATH=" + os.Getenv("PATH"), "NO_COLOR=1"}
	return &home{t: t, dir: dir, env: append(env, extra...)}
}

func (h *home) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Dir = h.env, h.dir
	return cmd
}

// must runs a command that has to succeed, and gives what it prints.
func (h *home) must(args ...string) string {
	h.t.Helper()
	cmd := h.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("mlfnode %s: %v\n%s%s", strings.Join(args, " "), err, tail(stdout.String()), tail(stderr.String()))
	}
	return stdout.String()
}

func tail(s string) string {
	if len(s) > 4000 {
		return "…" + s[len(s)-4000:]
	}
	return s
}

// interruptAfter runs a command and sends it a signal after some time, unless it ends before. It
// reports whether it ended by itself.
func (h *home) interruptAfter(after time.Duration, sig syscall.Signal, args ...string) bool {
	h.t.Helper()
	return h.interrupt(time.After(after), sig, args...)
}

// interruptOnce is interruptAfter for a moment that comes when ok is true. A machine that is busy
// takes its time until then.
func (h *home) interruptOnce(ok func() bool, sig syscall.Signal, args ...string) bool {
	h.t.Helper()
	now, ended := make(chan time.Time, 1), make(chan struct{})
	defer close(ended)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		limit := time.After(terminalTimeout)
		for {
			select {
			case at := <-tick.C:
				if ok() {
					now <- at
					return
				}
			case at := <-limit:
				h.t.Errorf("mlfnode %s: nothing to interrupt after %v", strings.Join(args, " "), terminalTimeout)
				now <- at
				return
			case <-ended:
				return
			}
		}
	}()
	return h.interrupt(now, sig, args...)
}

func (h *home) interrupt(now <-chan time.Time, sig syscall.Signal, args ...string) bool {
	h.t.Helper()
	cmd := h.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		h.t.Fatalf("start mlfnode %s: %v", strings.Join(args, " "), err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			h.t.Fatalf("mlfnode %s: %v\n%s", strings.Join(args, " "), err, tail(out.String()))
		}
		return true
	case <-now:
		if err := cmd.Process.Signal(sig); err != nil {
			h.t.Fatalf("signal mlfnode: %v", err)
		}
		<-ended
		return false
	}
}

// read opens the state folder for reading while fn runs.
func (h *home) read(fn func(c *api.Client)) {
	h.t.Helper()
	cfg, err := config.Load("")
	if err != nil {
		h.t.Fatal(err)
	}
	cfg.StateDir = filepath.Join(h.dir, "state", "mlfnode")
	s, err := node.Attach(context.Background(), cfg, false, func() {})
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Close()
	fn(s.Client())
}

// trials gives every trial of the newest sweep.
func trials(t *testing.T, c *api.Client) []api.Trial {
	t.Helper()
	var all []api.Trial
	for tr, err := range c.Trials().List(t.Context(), api.Last, api.TrialQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tr)
	}
	return all
}

// output gives what a trial printed, by stream.
func output(t *testing.T, c *api.Client, index int64) map[string]string {
	t.Helper()
	text := map[string]string{}
	for o, err := range c.Logs().Stream(t.Context(), api.Last, api.LogQuery{Index: index}) {
		if err != nil {
			t.Fatal(err)
		}
		text[o.Stream] += string(o.Data)
	}
	return text
}

// checkResults fails unless every index has exactly one result, in order, in the given state.
func checkResults(t *testing.T, all []api.Trial, want int, state grid.State) {
	t.Helper()
	if len(all) != want {
		t.Fatalf("trials: got %d, want %d", len(all), want)
	}
	for i, tr := range all {
		if tr.Index != int64(i) || tr.State != state {
			t.Errorf("trial %d: got index %d in state %s (%s), want %s", i, tr.Index, tr.State, tr.Reason, state)
		}
	}
}

// processes lists processes whose command line holds the mark.
func processes(t *testing.T, mark string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, d := range dirs {
		b, err := os.ReadFile(d)
		if err == nil && bytes.Contains(b, []byte(mark)) {
			found = append(found, d+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

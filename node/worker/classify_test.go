package worker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/failure"
)

// TestProgramsAreToldApart runs programs that print what frameworks print, and then end.
func TestProgramsAreToldApart(t *testing.T) {
	const traceback = `printf 'Traceback (most recent call last):\n  File "t.py", line 1, in f\n    g()\n' >&2; `
	tests := map[string]struct {
		shell string
		class grid.Class
		rule  string
		in    []string // of the reason
	}{
		"memory of a GPU": {
			traceback + `echo 'RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB' >&2; for i in 1 2 3 4 5 6; do echo "bye $i" >&2; done; exit 1`,
			grid.ClassCUDAMemory, "cuda_oom/torch",
			[]string{
				"exit code 1: a GPU ran out of memory (cuda_oom, rule cuda_oom/torch)\nRuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\nbye 2\n",
				"bye 6",
			},
		},
		"on stdout": {
			`echo 'OSError: [Errno 98] Address already in use'; exit 3`, grid.ClassPort, "port/taken",
			[]string{"exit code 3: a network port is taken"},
		},
		"by a signal": {
			`echo 'memory allocation of 99 bytes failed' >&2; kill -ABRT $$`, grid.ClassMemory, "oom/allocation",
			[]string{"SIGABRT"},
		},
		"of which nobody knows": {
			`echo 'all went wrong' >&2; exit 1`, grid.ClassExit, "", []string{"exit code 1\nall went wrong"},
		},
		"silence": {`exit 4`, grid.ClassExit, "", []string{"exit code 4"}},
		"a crash": {
			`kill -SEGV $$`, grid.ClassSignal, "signal/crash", []string{"hint: PYTHONFAULTHANDLER=1"},
		},
		"success": {`echo 'CUDA out of memory'; exit 0`, grid.ClassNone, "", nil},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			s := newHarness(t, realPrograms(t))
			r := s.sweep("t-1", 1, 1, func(r *grid.Sweep) { r.Task.Command, r.Task.Shell = nil, c.shell })
			s.lease(r, 0, 1)
			s.run()
			got := s.finished(r.ID, 1)[0].Result
			if got.Class != c.class || got.Rule != c.rule {
				t.Errorf("got class %q by rule %q, want %q by %q\n%s", got.Class, got.Rule, c.class, c.rule, got.Reason)
			}
			for _, part := range c.in {
				if !strings.Contains(got.Reason, part) {
					t.Errorf("got reason %q, want %q in it", got.Reason, part)
				}
			}
			s.stop()
		})
	}
}

// TestRulesOfNodeAndProject checks that a node's rules and a project's rules classify failures. The
// project's rules take precedence.
func TestRulesOfNodeAndProject(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, failure.FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("rules:\n  - {class: limits, match: licence}\n  - {class: port, match: gone}\n")
	r, err := newFailureRules(dir)
	if err != nil {
		t.Fatal(err)
	}
	for project, want := range map[string]grid.Class{
		"": grid.ClassLimits, "rules: [{class: storage, match: licence}]": grid.ClassStorage,
		"rules: 1": grid.ClassLimits,
	} {
		a := &attempt{attemptSpec: attemptSpec{task: &grid.Task{}}, spool: spoolOf(t, "no licence left\n", project)}
		c := &classifier{rules: r, cfg: &Config{Logger: logger(t)}, devices: &DeviceTracker{},
			avoidedDevices: &avoidedDevices{}}
		result := &grid.Result{Class: grid.ClassExit, ExitCode: 1}
		if c.classify(a, result); result.Class != want {
			t.Errorf("project's rules %q: got class %s (rule %s), want %s", project, result.Class, result.Rule, want)
		}
		again := *result
		if c.classify(a, &again); again.Reason != result.Reason {
			t.Errorf("told twice: got reason %q", again.Reason)
		}
	}
	write("rules:\n  - {clas: limits}\n")
	if _, err := newFailureRules(dir); err == nil || !strings.Contains(err.Error(), failure.FileName+":2:6: ") {
		t.Errorf("a file that is wrong: got error %v, want its place", err)
	}
}

func spoolOf(t *testing.T, stderr, rules string) *spool {
	t.Helper()
	s, err := openSpool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	if _, err := s.stderr.WriteString(stderr); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.work, failure.FileName), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRetryGetsAnotherDevice retries a trial that crashed on a GPU, according to its output: it
// gets the other GPU, although the first would fit better.
func TestRetryGetsAnotherDevice(t *testing.T) {
	s, _ := newWatchedHarness(t, "2xA100-40", func(_ context.Context, a *executor.Attempt) executor.Outcome {
		now := time.Now()
		o := executor.Outcome{Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1", Start: now, End: now}
		if _, err := a.Stderr.WriteString(
			"RuntimeError: CUDA error: an illegal memory access was encountered\n",
		); err != nil {
			t.Error(err)
		}
		return o
	})
	r := s.sweep("t-1", 1, 1, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One })
	s.run()
	var used []string
	for attempt := 1; attempt <= 2; attempt++ {
		lease := jetstream.Lease{Sweep: r.ID, Lo: 0, Hi: 1, Attempt: attempt, Shape: string(r.Lane())}
		if _, err := s.store.Queue.Publish(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		ended := s.finished(r.ID, attempt)
		got := ended[len(ended)-1].Result
		if len(got.Devices) != 1 || got.Class != grid.ClassCUDAError || got.Device != got.Devices[0] {
			t.Fatalf("attempt %d: got class %s on %v, blamed on %q", attempt, got.Class, got.Devices, got.Device)
		}
		used = append(used, got.Devices[0])
	}
	if used[0] == used[1] {
		t.Errorf("both attempts ran on %s", used[0])
	}
}

package node_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/durable"
)

// testConfig returns settings with a state folder of the test's own.
func testConfig(t *testing.T) config.Config {
	return config.Config{
		StateDir: t.TempDir(), Node: "test", Machine: inventory.Machine{CPUs: 4, Memory: 8 << 30},
		Retention: config.DefaultRetention(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func attach(t *testing.T, cfg config.Config) *node.Session {
	t.Helper()
	s, err := node.Attach(t.Context(), cfg, true, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// script makes a submission of a shell script over the axes.
func script(t *testing.T, text string, sets ...string) api.Submit {
	t.Helper()
	var axes []space.Axis
	for _, s := range sets {
		a, err := space.ParseSet(s)
		if err != nil {
			t.Fatal(err)
		}
		axes = append(axes, a)
	}
	points, err := space.New(axes, nil)
	if err != nil {
		t.Fatal(err)
	}
	task := grid.Task{
		Name: "test", Command: []string{"/bin/sh", "-c", text, "sh"}, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.DefaultRetries(), Grace: time.Second,
	}
	return api.Submit{Project: "t", Task: task, Space: points, Environ: os.Environ()}
}

func submit(t *testing.T, c *api.Client, s api.Submit) api.Sweep {
	t.Helper()
	v, err := c.Sweeps().Submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wait watches a sweep until it is at rest.
func wait(t *testing.T, c *api.Client, id grid.SweepID) api.Sweep {
	t.Helper()
	return until(t, c, id, func(api.Sweep) bool { return false })
}

// until watches a sweep until it is at rest or fn says so.
func until(t *testing.T, c *api.Client, id grid.SweepID, fn func(api.Sweep) bool) api.Sweep {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var last api.Sweep
	for u, err := range c.Sweeps().Watch(ctx, id, 0) {
		if err != nil {
			t.Fatalf("watch %s: %v (last %+v)", id, err, last)
		}
		if u.Sweep != nil {
			last = *u.Sweep
			if fn(last) {
				return last
			}
		}
	}
	return last
}

func list(t *testing.T, c *api.Client, id grid.SweepID, q api.TrialQuery) []api.Trial {
	t.Helper()
	var all []api.Trial
	for tr, err := range c.Trials().List(t.Context(), id, q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tr)
	}
	return all
}

func text(t *testing.T, c *api.Client, id grid.SweepID, q api.LogQuery) string {
	t.Helper()
	var b strings.Builder
	for o, err := range c.Logs().Stream(t.Context(), id, q) {
		if err != nil {
			t.Fatal(err)
		}
		b.Write(o.Data)
	}
	return b.String()
}

func TestSweepRunsEveryPoint(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	s := submit(t, c, script(t, `echo "$@"`, "a=1,2,3", "b=x,y"))
	got := wait(t, c, s.Sweep)
	if got.State != grid.SweepFinished || got.Succeeded != 6 || got.Pending != 0 {
		t.Fatalf("sweep: got %+v, want 6 succeeded and finished", got)
	}
	for i, tr := range list(t, c, s.Sweep, api.TrialQuery{}) {
		want := fmt.Sprintf("--a=%d --b=%s\n", i/2+1, []string{"x", "y"}[i%2])
		if out := text(t, c, s.Sweep, api.LogQuery{Index: tr.Index}); out != want {
			t.Errorf("output of trial %d: got %q, want %q", i, out, want)
		}
	}
	if all := text(t, c, s.Sweep, api.LogQuery{Index: -1}); strings.Count(all, "\n") != 6 {
		t.Errorf("output of the sweep: got %q, want 6 lines", all)
	}
}

func TestRetriesByFailureClass(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	sub := script(t, `[ "$MLF_ATTEMPT" = 3 ] && exit 0; exit 7`)
	sub.Task.Retries = grid.Retries{grid.ClassExit: 2}
	s := submit(t, c, sub)
	wait(t, c, s.Sweep)
	tr := list(t, c, s.Sweep, api.TrialQuery{})[0]
	if tr.State != grid.Succeeded || tr.Attempts != 3 {
		t.Errorf("trial: got %s after %d attempts, want succeeded after 3", tr.State, tr.Attempts)
	}
	attempts, err := c.Trials().Attempts(t.Context(), grid.TrialID{Sweep: s.Sweep})
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []string
	for _, a := range attempts {
		outcomes = append(outcomes, a.Outcome)
	}
	if want := []string{"retried", "retried", "result"}; !slices.Equal(outcomes, want) {
		t.Errorf("outcomes: got %v, want %v", outcomes, want)
	}

	sub.Task.Retries = grid.Retries{grid.ClassSignal: 5}
	s = submit(t, c, sub)
	if got := wait(t, c, s.Sweep); got.Failed != 1 {
		t.Errorf("a class without retries: got %+v, want one failure", got)
	}
}

func TestPauseResumeCancelRetry(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	gate := filepath.Join(t.TempDir(), "gate")
	s := submit(t, c, script(t, `while [ ! -e `+gate+` ]; do sleep 0.02; done`, "i=0:12"))
	until(t, c, s.Sweep, func(v api.Sweep) bool { return v.Running == 4 })
	if _, err := c.Sweeps().Pause(t.Context(), s.Sweep); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // until the worker knows
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := wait(t, c, s.Sweep)
	if got.State != grid.SweepPaused || got.Succeeded != 4 || got.Pending != 8 {
		t.Fatalf("after pause: got %+v, want 4 succeeded and 8 pending", got)
	}
	if _, err := c.Sweeps().Cancel(t.Context(), s.Sweep, false); err != nil {
		t.Fatal(err)
	}
	if got = wait(t, c, s.Sweep); got.Cancelled != 8 || got.Pending != 0 {
		t.Fatalf("after cancel: got %+v, want 8 cancelled", got)
	}
	_, err := c.Sweeps().Resume(t.Context(), s.Sweep)
	var refusal *api.Error
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Hint, "mlfnode retry") {
		t.Errorf("resume of a cancelled sweep: got %v, want a hint to retry", err)
	}
	if _, err := c.Sweeps().Retry(t.Context(), s.Sweep, api.Retry{Index: -1}); err != nil {
		t.Fatal(err)
	}
	if got = wait(t, c, s.Sweep); got.State != grid.SweepFinished || got.Succeeded != 12 {
		t.Fatalf("after retry: got %+v, want 12 succeeded", got)
	}
}

func TestCancelKillsRunningTrials(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	s := submit(t, c, script(t, `sleep 100`, "i=0:8"))
	until(t, c, s.Sweep, func(v api.Sweep) bool { return v.Running == 4 })
	if _, err := c.Sweeps().Cancel(t.Context(), s.Sweep, false); err != nil {
		t.Fatal(err)
	}
	got := wait(t, c, s.Sweep)
	if got.Cancelled != 8 || got.Running != 0 {
		t.Fatalf("after cancel: got %+v, want 8 cancelled", got)
	}
}

func TestKillCountsAsNotRun(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	gate := filepath.Join(t.TempDir(), "gate")
	s := submit(t, c, script(t, `[ -e `+gate+` ] || sleep 100`, "i=0:6"))
	until(t, c, s.Sweep, func(v api.Sweep) bool { return v.Running == 4 })
	if _, err := c.Sweeps().Kill(t.Context(), s.Sweep); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, c, s.Sweep); got.State != grid.SweepPaused || got.Pending != 6 {
		t.Fatalf("after kill: got %+v, want 6 pending", got)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sweeps().Resume(t.Context(), s.Sweep); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, c, s.Sweep); got.Succeeded != 6 {
		t.Fatalf("after resume: got %+v, want 6 succeeded", got)
	}
}

func TestExtendRunsOnlyNewPoints(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	runs := filepath.Join(t.TempDir(), "runs")
	s := submit(t, c, script(t, `echo "$@" >>`+runs, "a=1,2"))
	wait(t, c, s.Sweep)
	axis, err := space.ParseSet("a=2,3")
	if err != nil {
		t.Fatal(err)
	}
	done, err := c.Sweeps().Extend(t.Context(), s.Sweep, api.Extend{Axes: []space.Axis{axis}})
	if err != nil || done.Changed != 1 {
		t.Fatalf("extend: got %+v, %v, want one new point", done, err)
	}
	if got := wait(t, c, s.Sweep); got.Succeeded != 3 || got.State != grid.SweepFinished {
		t.Fatalf("after extend: got %+v, want 3 succeeded", got)
	}
	b, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	slices.Sort(lines)
	if want := []string{"--a=1", "--a=2", "--a=3"}; !slices.Equal(lines, want) {
		t.Errorf("runs: got %v, want %v", lines, want)
	}
}

func TestMaxParallelAndPriority(t *testing.T) {
	cfg := testConfig(t)
	cfg.Machine.CPUs = 2
	c := attach(t, cfg).Client()
	low := script(t, `sleep 0.05`, "i=0:40")
	s := submit(t, c, low)
	until(t, c, s.Sweep, func(v api.Sweep) bool { return v.Succeeded > 2 })
	high := script(t, `sleep 0.05`, "i=0:10")
	high.Priority = 5
	h := submit(t, c, high)
	if got := wait(t, c, h.Sweep); got.Succeeded != 10 {
		t.Fatalf("urgent sweep: got %+v", got)
	}
	v, err := c.Sweeps().Get(t.Context(), s.Sweep)
	if err != nil {
		t.Fatal(err)
	}
	if v.Succeeded > 20 {
		t.Errorf("the less urgent sweep has %d of 40 done when the urgent one ended, want it to wait", v.Succeeded)
	}

	one := script(t, `mkdir `+filepath.Join(t.TempDir(), "alone")+` || exit 1; sleep 0.02; rmdir `+
		filepath.Join(t.TempDir(), "alone"), "i=0:8")
	dir := filepath.Join(t.TempDir(), "only")
	one.Task.Command[2] = "mkdir " + dir + " || exit 1; sleep 0.02; rmdir " + dir
	one.MaxParallel = 1
	o := submit(t, c, one)
	if got := wait(t, c, o.Sweep); got.Succeeded != 8 {
		t.Errorf("sweep with max-parallel 1: got %+v, want 8 succeeded, none beside another", got)
	}
}

func TestMetricsArtifactsAndEnvironment(t *testing.T) {
	c := attach(t, testConfig(t)).Client()
	sub := script(t, `mkdir result; echo '[{"epoch": 1, "acc": 0.5}, {"epoch": 2, "acc": NaN, "main/acc": 0.75}]' > result/log
echo "loss=0.25 after"; echo '{"steps": 12}'; echo '{"speed": 3.5, "name": "x"}' >> $MLF_METRICS
echo kept > $MLF_OUT/kept.txt; echo no > other; echo "$MLF_TRIAL $MLF_PARAMS $FROM_TASK"`, "a=1e-3")
	sub.Environ = append(sub.Environ, "FROM_SHELL=shell")
	sub.Task.Env = map[string]string{"FROM_TASK": "task-$FROM_SHELL"}
	sub.Task.Metrics = []grid.Source{{Log: "result/log"}, {Regex: `loss=(?P<loss>[0-9.]+)`}, {JSON: "stdout"}}
	sub.Task.Artifacts = []string{"result/**"}
	sub.Task.Objective = &grid.Objective{Metric: "main/acc", Goal: "maximize"}
	s := submit(t, c, sub)
	wait(t, c, s.Sweep)
	tr := list(t, c, s.Sweep, api.TrialQuery{Sort: "objective", Desc: true})[0]
	want := map[string]string{"epoch": "2", "acc": `"NaN"`, "main/acc": "0.75", "loss": "0.25",
		"steps": "12", "speed": "3.5", "name": `"x"`}
	for name, v := range want {
		if got := string(tr.Metrics[name]); got != v {
			t.Errorf("metric %s: got %s, want %s", name, got, v)
		}
	}
	if out := text(t, c, s.Sweep, api.LogQuery{Index: 0}); !strings.Contains(out,
		string(s.Sweep)+`/0 {"a":1e-3} task-shell`) {
		t.Errorf("environment: got %q", out)
	}
	r, err := c.Trials().Artifacts(t.Context(), s.Sweep, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names []string
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"0/kept.txt", "0/result/log"}; !slices.Equal(names, want) {
		t.Errorf("artifacts: got %v, want %v", names, want)
	}
}

func TestSecondSessionReachesTheFirst(t *testing.T) {
	cfg := testConfig(t)
	first := attach(t, cfg)
	second := attach(t, cfg)
	if !first.Hosting() || second.Hosting() {
		t.Fatalf("hosting: got %v and %v, want the first alone", first.Hosting(), second.Hosting())
	}
	s := submit(t, second.Client(), script(t, `echo hello`))
	if got := wait(t, second.Client(), s.Sweep); got.Succeeded != 1 {
		t.Errorf("sweep of the second session: got %+v", got)
	}
	if err := first.Idle(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.Close()
	third, err := node.Attach(t.Context(), cfg, false, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if got := text(t, third.Client(), s.Sweep, api.LogQuery{Index: 0}); got != "hello\n" {
		t.Errorf("output read by a quiet node: got %q, want hello", got)
	}
}

func TestHistoryIsRebuiltFromTheStream(t *testing.T) {
	cfg := testConfig(t)
	first := attach(t, cfg)
	s := submit(t, first.Client(), script(t, `exit $(($MLF_ATTEMPT % 2))`, "i=0:20"))
	wait(t, first.Client(), s.Sweep)
	before := list(t, first.Client(), s.Sweep, api.TrialQuery{})
	first.Close()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(cfg.StateDir, "history.db"+suffix)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	after := list(t, attach(t, cfg).Client(), s.Sweep, api.TrialQuery{})
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("rebuilt history differs (-before +after):\n%s", diff)
	}
}

// TestUnfinishedFilesAreRemoved clears away what a life that was killed had begun to write, before
// this one writes anything.
func TestUnfinishedFilesAreRemoved(t *testing.T) {
	cfg := testConfig(t)
	part := filepath.Join(cfg.StateDir, durable.PartPrefix+"cluster.json-1")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	attach(t, cfg)
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for the file, want it gone", err)
	}
}

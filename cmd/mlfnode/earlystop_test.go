package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// trained is what came of a sweep of the example chainer.
type trained struct {
	trials []api.Trial
	best   int64   // index
	loss   float64 // of the best
	wall   float64 // seconds, of all trials
}

// problemOf says why the newest sweep was paused.
func problemOf(t *testing.T) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), &interrupts{}, []string{"sweeps", "--json"}, &stdout, &stderr); code != 0 {
		t.Fatalf("sweeps: exit code %d\n%s", code, &stderr)
	}
	return stdout.String()
}

// train runs a grid of the example, and gives its trials.
func train(t *testing.T, more ...string) (out trained) {
	t.Helper()
	args := append([]string{"sweep", "chainer", "--quiet", "--set", "epoch=200", "--set", "batchsize=200", "--set",
		"unit=60,40,20,4,2,1",
		"--objective", "validation/main/loss:min"}, more...)
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), &interrupts{}, args, &stdout, &stderr)
	if code != 0 && os.Getenv("CI") != "true" && strings.Contains(problemOf(t), "its setup failed") {
		t.Skip("the packages of the chainer example can't be installed here")
	}
	if code != 0 {
		t.Fatalf("%v: exit code %d\n%s%s", args, code, &stdout, &stderr)
	}
	stdout.Reset()
	if code := run(t.Context(), &interrupts{}, []string{"trials", "last", "--json"}, &stdout, &stderr); code != 0 {
		t.Fatalf("trials: exit code %d\n%s", code, &stderr)
	}
	out.loss = math.Inf(1)
	if err := json.Unmarshal(stdout.Bytes(), &out.trials); err != nil {
		t.Fatal(err)
	}
	for _, trial := range out.trials {
		out.wall += trial.Usage.Wall
		var loss float64
		if err := json.Unmarshal(trial.Metrics["validation/main/loss"], &loss); err != nil {
			t.Fatalf("%s: %v in %s", trial.Trial, err, trial.Metrics)
		}
		if trial.State == grid.Succeeded && loss < out.loss {
			out.best, out.loss = trial.Index, loss
		}
	}
	return out
}

// TestEarlyStopOnChainer trains a grid of the example to its end, and again with trials stopped
// early. Worse ones are stopped, the best of the first sweep is not, and it comes to the same loss.
func TestEarlyStopOnChainer(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("MLF_CPUS", "2")
	t.Chdir(t.TempDir())
	whole, early := train(t), train(t, "--stop", "median:10")
	stopped := 0
	for _, trial := range early.trials {
		if trial.Class != grid.ClassStopped {
			continue
		}
		stopped++
		t.Logf("%s: %s", trial.Trial, trial.Reason)
		if trial.Index == whole.best {
			t.Errorf("the best trial was stopped: %s", trial.Reason)
		}
	}
	if stopped == 0 {
		t.Error("no trial was stopped")
	}
	if early.best != whole.best || early.loss != whole.loss {
		t.Errorf("best: got trial %d with %g, want trial %d with %g as without stops", early.best, early.loss,
			whole.best, whole.loss)
	}
	t.Logf("best loss %g by trial %d; %d of %d trials stopped early; %.0f %% of %.0f s saved",
		early.loss, early.best, stopped, len(early.trials), 100*(1-early.wall/whole.wall), whole.wall)
}

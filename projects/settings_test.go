package projects

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
)

// TestSettings checks that flags define a task just as project.yaml does.
func TestSettings(t *testing.T) {
	all := []Setting{
		{"artifact", "result/**"}, {"artifact", "*.png"}, {"share", "data/**"}, {"exclude", "lr > 1"},
		{"exclude", "k == 2"},
		{"metric", "log:out/log.json"}, {"metric", "regex:loss=(?P<loss>[0-9.:]+)"}, {"objective", "eval:loss:min"},
		{"setup", "make deps"}, {"timeout", "1h30m"}, {"retries", "3"}, {"order", "spread"}, {"cpus", "2"},
		{"memory", "4GiB"}, {"gpus", "0.5"},
	}
	dir := tree{"train.py": ":", "project.yaml": `
tasks:
  train:
    command: ["python3", "train.py"]
    artifacts: ["result/**", "*.png"]
    share: ["data/**"]
    exclude: ["lr > 1", "k == 2"]
    metrics: [{log: out/log.json}, {regex: 'loss=(?P<loss>[0-9.:]+)'}]
    objective: {metric: "eval:loss", goal: minimize}
    setup: make deps
    timeout: 1h30m
    retries: 3
    order: spread
    resources: {cpus: 2, memory: 4GiB, gpus: 0.5}
`}.folder(t)
	p, err := Load(dir)
	check(t, err)
	want, err := p.Task("")
	check(t, err)
	adhoc, err := Adhoc([]string{"python3", "train.py"}, dir)
	check(t, err)
	check(t, adhoc.Apply("", all))
	got, err := adhoc.Task("")
	check(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wrong task (-project.yaml +flags):\n%s", diff)
	}
}

// TestSettingsOverProject checks that flags extend the lists of a project and replace its other
// fields.
func TestSettingsOverProject(t *testing.T) {
	dir := tree{"project.yaml": `
tasks:
  train:
    command: ["true"]
    artifacts: ["a"]
    exclude: ["k == 1"]
    metrics: {log: log}
    timeout: 2h
    order: spread
    resources: {cpus: 2, memory: 1GiB}
`}.folder(t)
	p, err := Load(dir)
	check(t, err)
	check(t, p.Apply("train",
		[]Setting{{"artifact", "b"}, {"exclude", "k == 2"}, {"metric", "json:stdout"}, {"timeout", "0"},
			{"order", "index"}, {"cpus", "3"}}))
	got, err := p.Task("")
	check(t, err)
	want := &Definition{Exclude: []string{"k == 1", "k == 2"}, Task: grid.Task{
		Name: "train", Command: []string{"true"}, Artifacts: []string{"a", "b"},
		Metrics:   []grid.Source{{JSON: "stdout"}},
		Resources: grid.Resources{CPUs: 3 * grid.One, Memory: 1 << 30}, Retries: grid.DefaultRetries(),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wrong task (-want +got):\n%s", diff)
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, c := range []struct{ flag, text, want string }{
		{"metric", "loss", `--metric "loss" does not work: it does not begin with log:, regex: or json:. Write log:result/log, json:stdout or 'regex:loss=(?P<loss>[0-9.]+)'`},
		{"metric", "regex:loss",
			`--metric "regex:loss" does not work: the regex has no named group. Name each metric, like 'loss: (?P<loss>[0-9.]+)'.`},
		{"metric", "json:stderr",
			`--metric "json:stderr" does not work: metrics.json is "stderr". Write json: stdout.`},
		{"objective", "loss",
			`--objective "loss" does not work: it does not name a metric with a goal. Write loss:min or accuracy:max`},
		{"objective", ":min",
			`--objective ":min" does not work: it does not name a metric with a goal. Write loss:min or accuracy:max`},
		{"objective", "loss:least",
			`--objective "loss:least" does not work: it does not name a metric with a goal. Write loss:min or accuracy:max`},
		{"artifact", "../x", `--artifact "../x" does not work: the pattern "../x" leaves the trial's folder. Patterns start at the trial's folder: no leading '/' and no '..'.`},
		{"cpus", "0", `--cpus "0" does not work: cpus is 0. Give the cores that one trial uses, like 1 or 0.5.`},
		{"memory", "lots",
			`--memory "lots" does not work: memory is "lots", which is not a size. Write it like 1GiB, 500MB or as bytes.`},
		{"setup", "", `--setup is empty. Give a value, or leave it out`},
	} {
		p, err := Adhoc([]string{"true"}, t.TempDir())
		check(t, err)
		wantError(t, p.Apply("", []Setting{{c.flag, c.text}}), c.want)
	}
}

// TestSettingsDuration checks that a duration with a fraction of a second is kept.
func TestSettingsDuration(t *testing.T) {
	p, err := Adhoc([]string{"true"}, t.TempDir())
	check(t, err)
	check(t, p.Apply("", []Setting{{"timeout", "1.5s"}}))
	d, err := p.Task("")
	check(t, err)
	if want := 1500 * time.Millisecond; d.Task.Timeout != want {
		t.Errorf("got %s, want %s", d.Task.Timeout, want)
	}
}

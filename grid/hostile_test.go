package grid

import (
	"strings"
	"testing"

	"mlfnode/grid/space"
)

// TestSubmissionsThatNobodyCanRead submits scripts, keys and names that would exhaust a master's
// stack or time. Check rejects each immediately.
func TestSubmissionsThatNobodyCanRead(t *testing.T) {
	many := func(text string, n int) string { return strings.Repeat(text, n) }
	for name, script := range map[string]string{
		"subshells":           "echo {a}; " + many("(", 2_000_000),
		"subshells, spaced":   "echo {a}; " + many("( ", 60_000) + ":" + many(" )", 60_000),
		"substitutions":       "echo {a} " + many("$(", 40_000) + many(")", 40_000),
		"quoted":              "echo {a} " + many("\"$(", 40_000),
		"arithmetic":          "echo {a} $((" + many("(", 100_000) + "1",
		"without placeholder": many("(", 2_000_000),
		"placeholders":        many("{a}", 20_000),
		"longer than can run": "echo " + many("x", 200_000),
	} {
		for _, task := range []Task{{Shell: script}, {Command: []string{"bash", "-c", script + "{a}"}}} {
			if err := task.Template().Check([]string{"a"}); err == nil {
				t.Errorf("%s: not refused", name)
			}
			if argv := task.Template().Argv(space.Params{{Key: "a", Value: space.Value{Text: "1"}}}); len(argv) != 3 ||
				!strings.Contains(argv[2], "exit 2") {
				t.Errorf("%s: a stored one does not say why it fails", name)
			}
		}
	}
	good := Task{Shell: "for i in 1 2; do " + many("( ", 500) + "echo {a}" + many(" )", 500) +
		"; case $i in a) ;; b) ;; esac; done " + many("# long\n", 10_000)}
	if err := good.Template().Check(nil); err != nil {
		t.Errorf("a long script is refused: %v", err)
	}
	axes := make([]space.Axis, 20_000)
	constants := make(space.Params, len(axes))
	for i := range axes {
		key := "k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + many("y", i/182)
		axes[i], constants[i] = space.Axis{Key: key, Values: []space.Value{{Text: "1"}}},
			space.Param{Key: key, Value: space.Value{Text: "1"}}
	}
	if _, err := space.New(axes, nil); err == nil {
		t.Error("20,000 axes are taken")
	}
	task := Task{Name: "t", Command: []string{"true"}, Resources: Resources{CPUs: One}}
	for name, edit := range map[string]func(*Task){
		"constants":         func(t *Task) { t.Constants = constants },
		"long objective":    func(t *Task) { t.Objective = &Objective{Metric: many("m", 201), Goal: "minimize"} },
		"ESC in objective":  func(t *Task) { t.Objective = &Objective{Metric: "a\x1b[31m", Goal: "minimize"} },
		"bidi in objective": func(t *Task) { t.Objective = &Objective{Metric: "a\u202e", Goal: "minimize"} },
	} {
		bad := task
		edit(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestPatternsThatNeverEnd checks that patterns are rejected if a worker would search practically
// forever, even after a cancel.
func TestPatternsThatNeverEnd(t *testing.T) {
	for name, p := range map[string]string{
		"choices": strings.Repeat("{a,b}", 60), "nested": strings.Repeat("{a,", 60) + "a" + strings.Repeat("}", 60),
		"stars": strings.Repeat("**/", 50) + "x", "long": strings.Repeat("x", 5000),
	} {
		if CheckPattern(p) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, p := range []string{"result/**", "**/*.{json,csv,png,pt,txt}", "{a,b,c}/{1,2,3}/**/model.{pt,ckpt}",
		"a,b,c", "out/**/x/**"} {
		if err := CheckPattern(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestSetupsOfSubmissions checks that a submission is rejected for the setup steps that
// project.yaml cannot contain either.
func TestSetupsOfSubmissions(t *testing.T) {
	t.Parallel()
	for want, task := range map[string]Task{
		"the task has venv and an image":                 {Image: "python:3.12", Venv: ".venv"},
		"the setup step has 1001 inputs, more than 1000": {Inputs: make([]string, 1001)},
	} {
		task.Name, task.Command, task.Setup = "t", []string{"true"}, []string{"true"}
		if err := task.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

package grid

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
)

// Limits of a submission.
const (
	maxProject = 40
	maxLabel   = 200  // the user's name for a sweep, a task's name
	maxAmount  = 1e6  // processors or devices of one trial
	maxOptions = 1000 // constants, or inputs of a setup step

	// MaxRetries bounds the retries of one class: more would be a loop that hides a broken program.
	MaxRetries = 1000
)

var (
	projectName  = lazyregexp.New(`^[A-Za-z0-9-]+$`)
	variableName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// CheckProject returns an error if name cannot be a project's name, which becomes part of sweep
// IDs, subjects of the store and paths.
func CheckProject(name string) error {
	if len(name) > maxProject || !projectName.Get().MatchString(name) {
		return problem.Errorf("Use letters, digits and dashes, at most 40.", "%.60q is not a valid project name", name)
	}
	return nil
}

// CheckLabel returns an error if text cannot be a name for people: it must be one short line.
// Messages refer to it as what. An empty label is allowed.
func CheckLabel(what, text string) error {
	switch {
	case !utf8.ValidString(text):
		return problem.Errorf("Write it as UTF-8.", "%s is not valid UTF-8", what)
	case utf8.RuneCountInString(text) > maxLabel:
		return problem.Errorf("Use at most 200.", "%s has %d characters", what, utf8.RuneCountInString(text))
	case strings.ContainsFunc(text, isInvisible):
		return problem.Errorf("Take them out.", "%s %.60q contains control characters", what, text)
	}
	return nil
}

// isInvisible reports whether a character controls a terminal or the direction of text.
func isInvisible(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// CheckSweepName returns an error if text cannot be a user's name for a sweep of the project.
// Commands accept the name in place of the sweep's ID, so it must not denote another sweep. An
// empty name is allowed.
func CheckSweepName(project, name string) error {
	const what = "the sweep's name"
	if err := CheckLabel(what, name); err != nil || name == "" {
		return err
	}
	number, numbered := strings.CutPrefix(name, project+"-")
	switch {
	case strings.TrimSpace(name) != name:
		return problem.Errorf("Leave it out.", "%s %.60q begins or ends with white space", what, name)
	case name == "last", strings.Contains(name, "/"), strings.HasPrefix(name, "-"):
		return problem.Errorf("Use a name without '/', like lr-search.", "%s %.60q has another meaning in commands",
			what, name)
	case numbered && number != "" && strings.Trim(number, "0123456789") == "":
		return problem.Errorf("The sweeps of the project are named like this automatically.",
			"%s %.60q may be the name of another sweep", what, name)
	}
	return nil
}

// CheckVariable returns an error if name cannot be the name of an environment variable.
func CheckVariable(name string) error {
	if !variableName.Get().MatchString(name) {
		return problem.Errorf("Use letters, digits and '_'.", "%q is not a valid name of an environment variable", name)
	}
	return nil
}

// IsRelative reports whether a slash-separated path or pattern stays in the folder where it starts.
func IsRelative(p string) bool {
	return p != "" && !path.IsAbs(p) && !slices.Contains(strings.Split(p, "/"), "..")
}

// CheckPattern returns an error if p is not a valid pattern of files below a trial's folder.
func CheckPattern(p string) error {
	choices := 1 // approximately how many patterns p expands to, counted only a little past the limit
	for _, group := range strings.Split(p, "{")[1:] {
		choices = min(choices*(1+strings.Count(group, ",")), maxChoices+1)
	}
	switch {
	case p == "" || !doublestar.ValidatePattern(p):
		return problem.Errorf("Write it like result/** or *.json.", "%q is not a valid pattern", p)
	case len(p) > maxPattern || choices > maxChoices || strings.Count(p, "**") > maxStars:
		return problem.Errorf("Give several shorter ones.", "the pattern %.60q stands for too many", p)
	case !IsRelative(p):
		return problem.Errorf("Patterns start at the trial's folder: no leading '/' and no '..'.",
			"the pattern %q leaves the trial's folder", p)
	}
	return nil
}

// Limits of a pattern: the time to match files grows with each of its alternatives, and multiplies
// with each `**`.
const (
	maxPattern = 4096 // bytes, the same as for a path
	maxChoices = 1000
	maxStars   = 8
)

// CheckRegex returns an error if text is not a regular expression that yields metrics.
func CheckRegex(text string) error {
	re, err := regexp.Compile(text)
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		return problem.Errorf("Use the syntax of Go's regexp package, and single quotes around it.",
			"the regex is not valid: %s", reason)
	}
	if !slices.ContainsFunc(re.SubexpNames(), func(name string) bool { return name != "" }) {
		return problem.Errorf("Name each metric, like 'loss: (?P<loss>[0-9.]+)'.", "the regex has no named group")
	}
	return nil
}

// Check returns an error if no node can run the task. A project's loader finds the same problems
// with their line numbers; Check covers tasks from other sources, mostly the API.
func (t *Task) Check() error {
	if t.Name == "" {
		return problem.Errorf("Give it one.", "the task has no name")
	}
	for _, check := range []func() error{
		func() error { return CheckLabel("the task's name", t.Name) },
		t.checkCommand, t.checkOptions, t.Resources.Check, t.checkScheduling, t.Stop.Check, t.Checkpoint.Check,
		t.Retries.Check, t.CheckEscalation, t.CheckMeasureBy, t.checkResults, t.checkShare, t.checkContainer,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// CheckMeasureBy returns an error if the memory of trials cannot be measured as the task specifies.
func (t *Task) CheckMeasureBy() error {
	if t.MeasureBy != "" && !t.Resources.Measured() {
		return problem.Errorf("Set gpu_memory: auto, or leave measure_by out.",
			"measure_by is %.40q, but the memory of GPUs is not measured", t.MeasureBy)
	}
	return CheckLabel("measure_by", t.MeasureBy)
}

func (t *Task) checkCommand() error {
	const hint = `Give the program and its arguments, like ["python3", "main.py"].`
	switch {
	case len(t.Command) == 0 && strings.TrimSpace(t.Shell) == "":
		return problem.Errorf(hint, "the task has no command")
	case len(t.Command) > 0 && t.Shell != "":
		return problem.Errorf("Give one of them.", "the task has both a program and a line for the shell")
	case len(t.Command) > 0 && strings.TrimSpace(t.Command[0]) == "":
		return problem.Errorf(hint, "command names no program")
	case len(t.Setup) > 0 && strings.TrimSpace(t.Setup[0]) == "":
		return problem.Errorf(hint, "setup names no program")
	case t.Venv != "" && t.Image != "":
		return problem.Errorf("Take an image that has the packages, or a setup step that installs them.",
			"the task has venv and an image")
	case len(t.Inputs) > maxOptions:
		return problem.Errorf("Give patterns, like deps/**.", "the setup step has %d inputs, more than %d",
			len(t.Inputs), maxOptions)
	case t.Venv != "" && (!IsRelative(t.Venv) || strings.ContainsAny(t.Venv, ":\x00") || len(t.Setup) == 0):
		return problem.Errorf("Name the folder that the setup step makes, like .venv.", "venv is %.60q", t.Venv)
	}
	command := append(slices.Clone(t.Command), t.Shell)
	for what, texts := range map[string][]string{"command": command, "setup": t.Setup, "image": {t.Image}} {
		if slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			return problem.Errorf("Take it out.", "%s contains a zero byte", what)
		}
	}
	return nil
}

// checkOptions checks the constants and the environment.
func (t *Task) checkOptions() error {
	if len(t.Constants) > maxOptions {
		return problem.Errorf("Put them into a file of the project.", "the task has %d constants, more than %d",
			len(t.Constants), maxOptions)
	}
	seen := map[string]bool{}
	for _, c := range t.Constants {
		if err := (space.Axis{Key: c.Key, Values: []space.Value{c.Value}}).Check(); err != nil {
			return err
		}
		if seen[c.Key] {
			return problem.Errorf("Keep one of them.", "the constant %s is given twice", c.Key)
		}
		seen[c.Key] = true
	}
	for name, value := range t.Env {
		if err := cmp.Or(CheckVariable(name), CheckEnvValue(name, value)); err != nil {
			return err
		}
	}
	return nil
}

// checkScheduling checks when trials run, for how long, and what they get from their node.
func (t *Task) checkScheduling() error {
	times := map[string]time.Duration{"timeout": t.Timeout, "idle_timeout": t.IdleTimeout, "grace": t.Grace}
	for what, d := range times {
		if d < 0 {
			return problem.Errorf("Write it like 2h, 1h30m, 90s or 1d.", "%s is %s, which is not a duration", what, d)
		}
	}
	switch {
	case t.GPUIDs != "" && t.GPUIDs != GPUIDsIndex:
		return problem.Errorf("Leave it out, or write index.", "gpu_ids is %.40q", t.GPUIDs)
	case t.Order != OrderIndex && !slices.Contains(Orders(), t.Order):
		return problem.Errorf("Leave it out, or write spread or longest_first.", "order is %.40q", string(t.Order))
	case t.LogLimit < 0:
		return problem.Errorf("Write it like 1GiB, 500MB or as bytes.", "log_limit is %d, which is not a size",
			t.LogLimit)
	case t.StopAfter < 0:
		return problem.Errorf("Write it like 5, or leave it out.", "stop_after is %d", t.StopAfter)
	}
	return nil
}

// Check returns an error if the policy is invalid.
func (r Retries) Check() error {
	for class, n := range r {
		if !slices.Contains(SettableClasses(), class) {
			return problem.Errorf("", "retries names %.60q, which is not a failure class that a task may set",
				string(class))
		}
		if n < 0 || n > MaxRetries {
			return problem.Errorf("Give a whole number from 0 to 1000.", "retries of %s is %d", class, n)
		}
	}
	return nil
}

func (t *Task) checkResults() error {
	for _, p := range t.Artifacts {
		if err := CheckPattern(p); err != nil {
			return err
		}
	}
	for i := range t.Metrics {
		if err := t.Metrics[i].check(); err != nil {
			return err
		}
	}
	o := t.Objective
	if o == nil {
		return nil
	}
	if o.Metric == "" || (o.Goal != "maximize" && o.Goal != "minimize") {
		return problem.Errorf("Write it like {metric: loss, goal: minimize}.",
			"the objective needs a metric and a goal")
	}
	return CheckLabel("the metric of the objective", o.Metric)
}

func (s *Source) check() error {
	given := 0
	for _, text := range []string{s.Log, s.Regex, s.JSON} {
		if text != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return problem.Errorf("Give one of log, regex and json; several sources stand in a list.",
			"a source of metrics has %d fields", given)
	case s.Log != "" && (!IsRelative(s.Log) || strings.ContainsRune(s.Log, 0)):
		return problem.Errorf("Give a path inside the folder, without a leading '/' and without '..'.",
			"metrics.log is %q, which leaves the folder", s.Log)
	case s.JSON != "" && s.JSON != "stdout":
		return problem.Errorf("Write json: stdout.", "metrics.json is %q", s.JSON)
	case s.Regex != "":
		return CheckRegex(s.Regex)
	}
	return nil
}

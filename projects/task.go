package projects

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
	"mlfnode/grid/space"
)

// task is a task as project.yaml defines it.
type task struct {
	grid.Task
	exclude []string
	repeat  int64

	requirements string // the file that venv names
	sample       *space.Sample
	include      []string
	parameters   string
	place        *yaml.Node            // of the field parameters
	places       map[string]*yaml.Node // of fields that are checked once all are known
}

func newTask(name string) *task {
	return &task{places: map[string]*yaml.Node{}, Task: grid.Task{Name: name, Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries()}}
}

func (s *schema) task(key, n *yaml.Node) *task {
	t := newTask(key.Value)
	what := "the task " + t.Name
	before := len(s.problems)
	s.fields(what, n, `{command: ["python3", "main.py"]}`, s.taskFields(t))
	if len(t.Command) == 0 && t.Shell == "" && len(s.problems) == before {
		s.report(key, `Add a line like command: ["python3", "-u", "main.py"].`, "%s has no command", what)
	}
	if err := t.CheckEscalation(); err != nil {
		s.report(t.places["escalation"], "", "%s", err) // the error has its own hint
	}
	if n := t.places["venv"]; n != nil && t.Image != "" {
		s.report(n, "Take an image that has the packages, or a setup step that installs them.", "%s has venv and an image", what)
	}
	if n := t.places["container"]; n != nil && t.Image == "" {
		s.report(n, "Name the image, or leave container out.", "%s has container, but no image", what)
	}
	return t
}

// taskFields reads the fields of a task into t.
func (s *schema) taskFields(t *task) map[string]field {
	return map[string]field{
		"command":      {jsonschema.Any(jsonschema.Text, jsonschema.Texts), func(what string, n *yaml.Node) { s.command(what, n, t) }},
		"parameters":   {jsonschema.Text, func(what string, n *yaml.Node) { t.parameters, t.place = s.inside(what, n), n }},
		"constants":    {jsonschema.Map(jsonschema.Text), func(what string, n *yaml.Node) { s.constants(what, n, t) }},
		"setup":        {jsonschema.Any(jsonschema.Text, jsonschema.Texts, objectOf(s.setupFields(t))), func(what string, n *yaml.Node) { s.setup(what, n, t) }},
		"venv":         {jsonschema.Text, func(what string, n *yaml.Node) { s.venv(what, n, t) }},
		"share":        {jsonschema.Texts, func(what string, n *yaml.Node) { t.Share = s.sharing(what, n) }},
		"include":      {jsonschema.Texts, func(what string, n *yaml.Node) { t.include = s.patterns(what, n) }},
		"image":        {jsonschema.Text, func(what string, n *yaml.Node) { s.image(what, n, t) }},
		"container":    {objectOf(s.containerFields(&grid.Container{})), func(what string, n *yaml.Node) { s.container(what, n, t) }},
		"env":          {jsonschema.Map(jsonschema.Text), func(what string, n *yaml.Node) { s.env(what, n, t) }},
		"resources":    {objectOf(s.resourceFields(t)), func(what string, n *yaml.Node) { s.resources(what, n, t) }},
		"gpu_ids":      {jsonschema.Choice("uuid", grid.GPUIDsIndex), func(what string, n *yaml.Node) { s.gpuIDs(what, n, t) }},
		"timeout":      {jsonschema.Duration, func(what string, n *yaml.Node) { s.duration(what, n, &t.Timeout) }},
		"idle_timeout": {jsonschema.Duration, func(what string, n *yaml.Node) { s.duration(what, n, &t.IdleTimeout) }},
		"grace":        {jsonschema.Duration, func(what string, n *yaml.Node) { s.duration(what, n, &t.Grace) }},
		"log_limit":    {jsonschema.Size, func(what string, n *yaml.Node) { s.size(what, n, &t.LogLimit) }},
		"retries":      {jsonschema.Any(jsonschema.Count, objectOf(s.retryFields(t))), func(what string, n *yaml.Node) { s.retries(what, n, t) }},
		"checkpoint":   {objectOf(s.checkpointFields(&grid.Checkpoint{})), func(what string, n *yaml.Node) { s.checkpoint(what, n, t) }},
		"nodes":        {jsonschema.Any(jsonschema.Text, jsonschema.Texts), func(what string, n *yaml.Node) { s.nodes(what, n, t) }},
		"order":        {jsonschema.Choice(append([]grid.Order{"index"}, grid.Orders()...)...), func(what string, n *yaml.Node) { s.order(what, n, t) }},
		"stop_after":   {jsonschema.Any(jsonschema.Count, jsonschema.Pattern(`^[0-9]+( failures?)?$`)), func(what string, n *yaml.Node) { t.StopAfter = s.failures(what, n) }},
		"stop":         {objectOf(s.stopFields(&grid.EarlyStop{})), func(what string, n *yaml.Node) { s.earlyStop(what, n, t) }},
		"preempt":      {jsonschema.Bool, func(what string, n *yaml.Node) { t.Preempt = s.truth(what, n, false) }},
		"replace":      {jsonschema.Bool, func(what string, n *yaml.Node) { t.NoReplace = !s.truth(what, n, true) }},
		"artifacts":    {jsonschema.Texts, func(what string, n *yaml.Node) { s.artifacts(what, n, t) }},
		"metrics":      {jsonschema.Any(objectOf(s.sourceFields(&grid.Source{}, new(int))), jsonschema.List(objectOf(s.sourceFields(&grid.Source{}, new(int))))), func(what string, n *yaml.Node) { s.metrics(what, n, t) }},
		"objective":    {objectOf(s.objectiveFields(&grid.Objective{})), func(what string, n *yaml.Node) { s.objective(what, n, t) }},
		"exclude":      {jsonschema.Any(jsonschema.Text, jsonschema.Texts), func(what string, n *yaml.Node) { s.exclude(what, n, t) }},
		"repeat":       {jsonschema.Positive, func(what string, n *yaml.Node) { t.repeat = s.number(what, n, maxRepeats) }},
		"sample":       {jsonschema.Any(jsonschema.Positive, objectOf(s.sampleFields(&space.Sample{}))), func(what string, n *yaml.Node) { s.sample(what, n, t) }},
	}
}

func (s *schema) command(what string, n *yaml.Node, t *task) {
	if isText(n) {
		t.Shell, _ = s.filled(what, n)
		return
	}
	t.Command = s.program(what, n)
}

// program reads a list of a program and its arguments.
func (s *schema) program(what string, n *yaml.Node) []string {
	before := len(s.problems)
	argv, _ := s.texts(what, n, `["python3", "main.py"]`)
	if len(s.problems) == before && (len(argv) == 0 || strings.TrimSpace(argv[0]) == "") {
		s.report(n, `Give the program and its arguments, like ["python3", "main.py"].`, "%s names no program", what)
	}
	return argv
}

func (s *schema) setup(what string, n *yaml.Node, t *task) {
	if s.twoSetups(n, t) {
		return
	}
	t.Inputs = nil
	if target := s.target(n); target == nil || target.Kind != yaml.MappingNode {
		s.setupStep(what, n, t)
		return
	}
	t.Setup = nil
	before := len(s.problems)
	s.fields(what, n, "{run: make deps, inputs: [requirements.txt]}", s.setupFields(t))
	if len(t.Setup) == 0 && len(s.problems) == before {
		s.report(n, "Write it like {run: make deps, inputs: [requirements.txt]}.", "setup has no run")
	}
}

func (s *schema) setupFields(t *task) map[string]field {
	return map[string]field{
		"run": {jsonschema.Any(jsonschema.Text, jsonschema.Texts), func(_ string, n *yaml.Node) { s.setupStep("setup.run", n, t) }},
		"inputs": {jsonschema.Any(jsonschema.Text, jsonschema.Texts), func(_ string, n *yaml.Node) {
			if isText(n) {
				text, _ := s.filled("setup.inputs", n)
				t.Inputs = []string{text}
				s.pattern("setup.inputs", text, n)
			} else if t.Inputs = s.patterns("setup.inputs", n); len(t.Inputs) == 0 {
				s.report(n, "Name the files, or leave inputs out: then the step reads all files.", "setup.inputs is empty")
			}
		}},
	}
}

// setupStep reads a program with its arguments, or a line for the shell.
func (s *schema) setupStep(what string, n *yaml.Node, t *task) {
	if !isText(n) {
		t.Setup = s.program(what, n)
	} else if line, ok := s.filled(what, n); ok {
		t.Setup = []string{"/bin/sh", "-c", line}
	}
}

// twoSetups refuses a setup step next to a virtual environment, which is itself made by a setup
// step.
func (s *schema) twoSetups(n *yaml.Node, t *task) bool {
	if t.places["setup"] != nil {
		s.report(n, "Keep one of them; a setup step can make the environment too.", "the task has both setup and venv")
	}
	twice := t.places["setup"] != nil
	t.places["setup"] = n
	return twice
}

func (s *schema) constants(what string, n *yaml.Node, t *task) {
	s.entries(what, n, "{out: result}", func(key, value *yaml.Node) {
		if !isText(value) {
			s.report(value, "Give one value; put several into the file that parameters names.", "the constant %s has more than one value", key.Value)
			return
		}
		v, problem := space.ScalarValue(s.file, key.Value, value)
		if problem != nil {
			s.problems.Add(*problem)
			return
		}
		if err := (space.Axis{Key: key.Value, Values: []space.Value{v}}).Check(); err != nil {
			s.report(key, "", "%s", err) // the error has its own hint
			return
		}
		t.Constants = append(t.Constants, space.Param{Key: key.Value, Value: v})
	})
}

func (s *schema) env(what string, n *yaml.Node, t *task) {
	t.Env = map[string]string{}
	s.entries(what, n, `{OMP_NUM_THREADS: "1"}`, func(key, value *yaml.Node) {
		if err := grid.CheckVariable(key.Value); err != nil {
			s.report(key, "", "%s", err) // the error has its own hint
		} else if v, ok := s.text(key.Value, value); !ok {
			return
		} else if err := grid.CheckEnvValue(key.Value, v); err != nil {
			s.report(value, "", "%s", err)
		} else {
			t.Env[key.Value] = v
		}
	})
}

// patterns reads patterns of files in the form of an ignore file.
func (s *schema) patterns(what string, n *yaml.Node) []string {
	texts, nodes := s.texts(what, n, `[".git", "gen/**"]`)
	for i, p := range texts {
		s.pattern(what, p, nodes[i])
	}
	return texts
}

func (s *schema) pattern(what, text string, n *yaml.Node) {
	if msg, hint := patternProblem(what, text); msg != "" {
		s.report(n, hint, "%s", msg)
	}
}

// sharing reads patterns of files in the project and paths outside it.
func (s *schema) sharing(what string, n *yaml.Node) []string {
	texts, nodes := s.texts(what, n, `["data/**", "/mnt/imagenet"]`)
	for i, p := range texts {
		if msg, hint := shareProblem(what, p); msg != "" {
			s.report(nodes[i], hint, "%s", msg)
		}
		if isOutside(p) {
			texts[i] = strings.TrimSuffix(p, "/**")
		}
	}
	return texts
}

func (s *schema) artifacts(what string, n *yaml.Node, t *task) {
	patterns, nodes := s.texts(what, n, `["result/**"]`)
	for i, p := range patterns {
		if err := grid.CheckPattern(p); err != nil {
			s.report(nodes[i], "", "%s", err)
		}
	}
	t.Artifacts = patterns
}

// relative reports whether a slash-separated path or pattern stays in the folder where it starts.
func relative(p string) bool { return grid.IsRelative(p) }

// inside reads the path of a file in the project.
func (s *schema) inside(what string, n *yaml.Node) string {
	p, ok := s.filled(what, n)
	if ok && !relative(p) {
		s.report(n, "Give the path from the folder itself, without leading '/' and without '..'.", "%s is %q, which leaves the folder", what, p)
		return ""
	}
	return p
}

// metrics reads one source or a list of them.
func (s *schema) metrics(what string, n *yaml.Node, t *task) {
	list := s.target(n)
	if list == nil {
		return
	}
	nodes := []*yaml.Node{n}
	if list.Kind == yaml.SequenceNode {
		nodes = list.Content
	}
	for _, n := range nodes {
		if s.full() {
			return
		}
		t.Metrics = append(t.Metrics, s.source(what, n))
	}
}

func (s *schema) source(what string, n *yaml.Node) (source grid.Source) {
	before, given := len(s.problems), 0
	s.fields(what, n, "{log: result/log}", s.sourceFields(&source, &given))
	if given != 1 && len(s.problems) == before {
		s.report(n, "Give one of log, regex and json; several sources stand in a list.", "a source of metrics has %d fields", given)
	}
	return source
}

// sourceFields reads a source of metrics, and counts in given the fields that name one.
func (s *schema) sourceFields(source *grid.Source, given *int) map[string]field {
	return map[string]field{
		"log":   {jsonschema.Text, func(what string, n *yaml.Node) { *given++; source.Log = s.inside("metrics.log", n) }},
		"regex": {jsonschema.Text, func(what string, n *yaml.Node) { *given++; source.Regex = s.regex(n) }},
		"json": {jsonschema.Choice("stdout"), func(what string, n *yaml.Node) {
			*given++
			var ok bool
			if source.JSON, ok = s.text("metrics.json", n); ok && source.JSON != "stdout" {
				s.report(n, "Write json: stdout.", "metrics.json is %q", source.JSON)
			}
		}},
		"optional": {jsonschema.Bool, func(what string, n *yaml.Node) { source.Optional = s.truth("metrics.optional", n, false) }},
	}
}

func (s *schema) regex(n *yaml.Node) string {
	text, ok := s.filled("metrics.regex", n)
	if !ok {
		return ""
	}
	if err := grid.CheckRegex(text); err != nil {
		s.report(n, "", "%s", err)
		return ""
	}
	return text
}

func (s *schema) objective(what string, n *yaml.Node, t *task) {
	o := &grid.Objective{}
	before := len(s.problems)
	s.fields(what, n, "{metric: loss, goal: minimize}", s.objectiveFields(o))
	if (o.Metric == "" || o.Goal == "") && len(s.problems) == before {
		s.report(n, "Write it like {metric: loss, goal: minimize}.", "the objective needs a metric and a goal")
	}
	t.Objective = o
}

func (s *schema) objectiveFields(o *grid.Objective) map[string]field {
	return map[string]field{
		"metric": {jsonschema.Text, func(what string, n *yaml.Node) { o.Metric, _ = s.filled("objective.metric", n) }},
		"goal":   {jsonschema.Choice("maximize", "minimize"), func(what string, n *yaml.Node) { o.Goal = s.oneOf("objective.goal", n, "maximize", "minimize") }},
	}
}

// oneOf reads one of several allowed texts.
func (s *schema) oneOf(what string, n *yaml.Node, choices ...string) string {
	text, ok := s.filled(what, n)
	if ok && !slices.Contains(choices, text) {
		s.report(n, "Write "+strings.Join(choices, " or ")+".", "%s is %q", what, text)
	}
	return text
}

// maxRepeats bounds how often one point is repeated.
const maxRepeats = 1_000_000

// number reads a whole number from 1 to most.
func (s *schema) number(what string, n *yaml.Node, most int64) int64 {
	text, ok := s.filled(what, n)
	v, err := strconv.ParseInt(text, 10, 64)
	if ok && (err != nil || v < 1 || v > most) {
		s.report(n, fmt.Sprintf("Give a whole number from 1 to %d.", most), "%s is %q", what, text)
	}
	return v
}

// earlyStop reads which trials are stopped early. What the objective says about the metric is
// filled in when the task is used.
func (s *schema) earlyStop(what string, n *yaml.Node, t *task) {
	e := &grid.EarlyStop{Rule: grid.StopMedian}
	before := len(s.problems)
	s.fields(what, n, "{metric: loss, rule: median, after: 5}", s.stopFields(e))
	if e.After == 0 && len(s.problems) == before {
		s.report(n, "Write it like {metric: loss, rule: median, after: 5}.", "stop has no after, the step from which trials may be stopped")
	}
	t.Stop = e
}

func (s *schema) stopFields(e *grid.EarlyStop) map[string]field {
	return map[string]field{
		"metric": {jsonschema.Text, func(_ string, n *yaml.Node) { e.Metric, _ = s.filled("stop.metric", n) }},
		"goal":   {jsonschema.Choice("minimize", "maximize"), func(_ string, n *yaml.Node) { e.Goal = s.oneOf("stop.goal", n, "minimize", "maximize") }},
		"rule": {jsonschema.Choice(string(grid.StopMedian), string(grid.StopHalving)), func(_ string, n *yaml.Node) {
			e.Rule = grid.StopRule(s.oneOf("stop.rule", n, string(grid.StopMedian), string(grid.StopHalving)))
		}},
		"after": {jsonschema.Above(0), func(_ string, n *yaml.Node) {
			text, ok := s.filled("stop.after", n)
			var err error
			if e.After, err = strconv.ParseFloat(text, 64); ok && (err != nil || !(e.After > 0) || math.IsInf(e.After, 0)) {
				s.report(n, "Give a step from which trials may be stopped, like 5.", "stop.after is %q", text)
			}
		}},
	}
}

// failures reads a number of failures, with or without the word "failures"; 0 means no limit.
func (s *schema) failures(what string, n *yaml.Node) int64 {
	text, ok := s.filled(what, n)
	number, _, _ := strings.Cut(text, " failure")
	v, err := strconv.ParseInt(number, 10, 64)
	if ok && (err != nil || v < 0 || text != number && text != number+" failure" && text != number+" failures") {
		s.report(n, "Write it like 5 failures, or 0 for no limit.", "%s is %q", what, text)
	}
	return v
}

// sample reads the number of points, or a map that also has the seed for drawing them.
func (s *schema) sample(what string, n *yaml.Node, t *task) {
	t.sample = &space.Sample{}
	if isText(n) {
		t.sample.Size = s.number(what, n, math.MaxInt64)
		return
	}
	before := len(s.problems)
	s.fields(what, n, "{size: 100, seed: 1}", s.sampleFields(t.sample))
	if t.sample.Size == 0 && len(s.problems) == before {
		s.report(n, "Write it like {size: 100, seed: 1}.", "%s has no size", what)
	}
}

func (s *schema) sampleFields(sample *space.Sample) map[string]field {
	return map[string]field{
		"size": {jsonschema.Positive, func(_ string, n *yaml.Node) { sample.Size = s.number("sample.size", n, math.MaxInt64) }},
		"seed": {jsonschema.Count, func(_ string, n *yaml.Node) {
			text, ok := s.filled("sample.seed", n)
			var err error
			if sample.Seed, err = strconv.ParseUint(text, 10, 64); ok && err != nil {
				s.report(n, "Give a whole number from 0.", "sample.seed is %q", text)
			}
		}},
	}
}

func (s *schema) exclude(what string, n *yaml.Node, t *task) {
	if isText(n) {
		if v, ok := s.filled(what, n); ok {
			t.exclude = []string{v}
		}
		return
	}
	texts, nodes := s.texts(what, n, `["batchsize == 500 and unit > 100"]`)
	for i, v := range texts {
		if strings.TrimSpace(v) == "" {
			s.report(nodes[i], "Write a condition on the axes, or leave it out.", "an exclude expression is empty")
		}
	}
	t.exclude = texts
}

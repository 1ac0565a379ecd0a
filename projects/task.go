package projects

import (
	"cmp"
	"errors"
	"math"
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
	place        *yaml.Node           // of the field parameters
	places       map[string]yamlValue // fields that are checked once all are known
}

func newTask(name string) *task {
	return &task{places: map[string]yamlValue{},
		Task: grid.Task{Name: name, Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries()}}
}

// readTask reads the task that key names.
func readTask(key, v yamlValue) *task {
	t := newTask(key.what)
	v.what = "the task " + t.Name
	if v.fields("", `{command: ["python3", "main.py"]}`, taskFields(t)) && len(t.Command) == 0 && t.Shell == "" {
		key.report(`Add a line like command: ["python3", "-u", "main.py"].`, "%s has no command", v.what)
	}
	if err := t.CheckEscalation(); err != nil {
		t.places["escalation"].reportError(err)
	}
	if venv, ok := t.places["venv"]; ok && t.Image != "" {
		venv.report("Take an image that has the packages, or a setup step that installs them.",
			"%s has venv and an image", v.what)
	}
	if container, ok := t.places["container"]; ok && t.Image == "" {
		container.report("Name the image, or leave container out.", "%s has container, but no image", v.what)
	}
	return t
}

// taskFields reads the fields of a task into t.
func taskFields(t *task) map[string]field {
	textOrList := jsonschema.Any(jsonschema.Text, jsonschema.Texts)
	source := objectOf(sourceFields(&grid.Source{}, new(int)))
	c := grid.DefaultCheckpoint()
	checkpoint := checkpointFields(&c)
	gpuIDs := choiceField(&t.GPUIDs, "uuid", grid.GPUIDsIndex)
	order := choiceField(&t.Order, append([]grid.Order{"index"}, grid.Orders()...)...)
	return map[string]field{
		"command": {textOrList, func(v yamlValue) {
			if v.isText() {
				t.Shell, _ = v.filled()
			} else {
				t.Command = program(v)
			}
		}},
		"parameters": {jsonschema.Text, func(v yamlValue) { t.parameters, t.place = inside(v), v.node }},
		"constants":  {jsonschema.Map(jsonschema.Text), func(v yamlValue) { readConstants(v, t) }},
		"setup": {
			jsonschema.Any(jsonschema.Text, jsonschema.Texts, objectOf(setupFields(t))),
			func(v yamlValue) { readSetup(v, t) },
		},
		"venv":    {jsonschema.Text, func(v yamlValue) { readVenv(v, t) }},
		"share":   {jsonschema.Texts, func(v yamlValue) { t.Share = readShare(v) }},
		"include": {jsonschema.Texts, func(v yamlValue) { t.include = patterns(v) }},
		"image": {jsonschema.Text, func(v yamlValue) {
			if ref, ok := v.text(); ok && ref != "" { // an empty name means no container
				v.reportError(grid.CheckImage(ref))
				t.Image = ref
			}
		}},
		"container": {objectOf(containerFields(&grid.Container{})), func(v yamlValue) {
			t.Container, t.places["container"] = &grid.Container{}, v
			v.fields("", "{shm: 8GiB}", containerFields(t.Container))
		}},
		"env": {jsonschema.Map(jsonschema.Text), func(v yamlValue) { readEnv(v, t) }},
		"resources": {objectOf(resourceFields(t)), func(v yamlValue) {
			if v.fields("", "{cpus: 1, memory: 1GiB}", resourceFields(t)) {
				v.reportError(cmp.Or(t.Resources.Check(), t.CheckMeasureBy()))
			}
		}},
		"gpu_ids": {gpuIDs.form, func(v yamlValue) {
			gpuIDs.read(v)
			if t.GPUIDs == "uuid" {
				t.GPUIDs = ""
			}
		}},
		"timeout":      durationField(&t.Timeout),
		"idle_timeout": durationField(&t.IdleTimeout),
		"grace":        durationField(&t.Grace),
		"log_limit":    sizeField(&t.LogLimit),
		"retries": {
			jsonschema.Any(jsonschema.Count, objectOf(retryFields(t))),
			func(v yamlValue) { readRetries(v, t) },
		},
		"checkpoint": {objectOf(checkpoint), func(v yamlValue) {
			t.Checkpoint = &c // an empty map declares a checkpoint with the defaults
			v.fields("", "{grace: 2m, every: 30m}", checkpoint)
		}},
		"nodes": {textOrList, func(v yamlValue) { readNodes(v, t) }},
		"order": {order.form, func(v yamlValue) {
			order.read(v)
			if t.Order == "index" {
				t.Order = grid.OrderIndex
			}
		}},
		"stop_after": {
			jsonschema.Any(jsonschema.Count, jsonschema.Pattern(`^[0-9]+( failures?)?$`)),
			into(&t.StopAfter, failures),
		},
		"stop":    {objectOf(stopFields(&grid.EarlyStop{})), func(v yamlValue) { readStop(v, t) }},
		"preempt": boolField(&t.Preempt),
		"replace": {jsonschema.Bool, func(v yamlValue) {
			replace, ok := v.truth()
			t.NoReplace = ok && !replace
		}},
		"artifacts": {jsonschema.Texts, func(v yamlValue) {
			texts, values := v.texts(`["result/**"]`)
			for i, p := range texts {
				values[i].reportError(grid.CheckPattern(p))
			}
			t.Artifacts = texts
		}},
		"metrics":   {jsonschema.Any(source, jsonschema.List(source)), func(v yamlValue) { readMetrics(v, t) }},
		"objective": {objectOf(objectiveFields(&grid.Objective{})), func(v yamlValue) { readObjective(v, t) }},
		"exclude":   {textOrList, func(v yamlValue) { readExclude(v, t) }},
		"repeat":    {jsonschema.Positive, into(&t.repeat, wholeNumber(1, maxRepeats, ""))},
		"sample": {
			jsonschema.Any(jsonschema.Positive, objectOf(sampleFields(&space.Sample{}))),
			func(v yamlValue) { readSample(v, t) },
		},
	}
}

// program reads a list of a program and its arguments.
func program(v yamlValue) []string {
	before := len(v.file.problems)
	argv, _ := v.texts(`["python3", "main.py"]`)
	if len(v.file.problems) == before && (len(argv) == 0 || strings.TrimSpace(argv[0]) == "") {
		v.report(`Give the program and its arguments, like ["python3", "main.py"].`, "%s names no program", v.what)
	}
	return argv
}

func readSetup(v yamlValue, t *task) {
	if twoSetups(v, t) {
		return
	}
	t.Inputs = nil
	if target := v.target(); target == nil || target.Kind != yaml.MappingNode {
		readSetupStep(v, t)
		return
	}
	t.Setup = nil
	if v.fields("setup.", "{run: make deps, inputs: [requirements.txt]}", setupFields(t)) && len(t.Setup) == 0 {
		v.report("Write it like {run: make deps, inputs: [requirements.txt]}.", "setup has no run")
	}
}

func setupFields(t *task) map[string]field {
	textOrList := jsonschema.Any(jsonschema.Text, jsonschema.Texts)
	return map[string]field{
		"run": {textOrList, func(v yamlValue) { readSetupStep(v, t) }},
		"inputs": {textOrList, func(v yamlValue) {
			if v.isText() {
				text, _ := v.filled()
				t.Inputs = []string{text}
				v.reportError(checkPattern(v.what, text))
			} else if t.Inputs = patterns(v); len(t.Inputs) == 0 {
				v.report("Name the files, or leave inputs out: then the step reads all files.", "setup.inputs is empty")
			}
		}},
	}
}

// readSetupStep reads a program with its arguments, or a line for the shell.
func readSetupStep(v yamlValue, t *task) {
	if !v.isText() {
		t.Setup = program(v)
	} else if line, ok := v.filled(); ok {
		t.Setup = []string{"/bin/sh", "-c", line}
	}
}

// twoSetups refuses a setup step next to a virtual environment, which is itself made by a setup
// step.
func twoSetups(v yamlValue, t *task) bool {
	_, twice := t.places["setup"]
	if twice {
		v.report("Keep one of them; a setup step can make the environment too.", "the task has both setup and venv")
	}
	t.places["setup"] = v
	return twice
}

func readConstants(v yamlValue, t *task) {
	v.entries("{out: result}", func(key, value yamlValue) {
		if !value.isText() {
			value.report("Give one value; put several into the file that parameters names.",
				"the constant %s has more than one value", key.what)
			return
		}
		scalar, problem := space.ScalarValue(v.file.name, key.what, value.node)
		if problem != nil {
			v.file.problems.Add(*problem)
			return
		}
		if err := (space.Axis{Key: key.what, Values: []space.Value{scalar}}).Check(); err != nil {
			key.reportError(err)
			return
		}
		t.Constants = append(t.Constants, space.Param{Key: key.what, Value: scalar})
	})
}

func readEnv(v yamlValue, t *task) {
	t.Env = map[string]string{}
	v.entries(`{OMP_NUM_THREADS: "1"}`, func(key, value yamlValue) {
		if err := grid.CheckVariable(key.what); err != nil {
			key.reportError(err)
		} else if text, ok := value.text(); !ok {
			return
		} else if err := grid.CheckEnvValue(key.what, text); err != nil {
			value.reportError(err)
		} else {
			t.Env[key.what] = text
		}
	})
}

// patterns reads patterns of files in the form of an ignore file.
func patterns(v yamlValue) []string {
	texts, values := v.texts(`[".git", "gen/**"]`)
	for i, p := range texts {
		values[i].reportError(checkPattern(v.what, p))
	}
	return texts
}

// readShare reads patterns of files in the project and paths outside it.
func readShare(v yamlValue) []string {
	texts, values := v.texts(`["data/**", "/mnt/imagenet"]`)
	for i, p := range texts {
		values[i].reportError(checkShared(v.what, p))
		if isOutside(p) {
			texts[i] = strings.TrimSuffix(p, "/**")
		}
	}
	return texts
}

// inside reads the path of a file in the project.
func inside(v yamlValue) string {
	p, ok := v.filled()
	if ok && !grid.IsRelative(p) {
		v.report("Give a path inside the folder, without a leading '/' and without '..'.",
			"%s is %q, which leaves the folder", v.what, p)
		return ""
	}
	return p
}

// readMetrics reads one source or a list of them.
func readMetrics(v yamlValue, t *task) {
	list := v.target()
	if list == nil {
		return
	}
	nodes := []*yaml.Node{v.node}
	if list.Kind == yaml.SequenceNode {
		nodes = list.Content
	}
	for _, n := range nodes {
		if v.file.full() {
			return
		}
		source, given := grid.Source{}, 0
		v.node = n
		if v.fields("metrics.", "{log: result/log}", sourceFields(&source, &given)) && given != 1 {
			v.report("Give one of log, regex and json; several sources stand in a list.",
				"a source of metrics has %d fields", given)
		}
		t.Metrics = append(t.Metrics, source)
	}
}

// sourceFields reads a source of metrics, and counts in given the fields that name one.
func sourceFields(source *grid.Source, given *int) map[string]field {
	return map[string]field{
		"log": {jsonschema.Text, func(v yamlValue) { *given++; source.Log = inside(v) }},
		"regex": {jsonschema.Text, func(v yamlValue) {
			*given++
			if text, ok := v.filled(); ok {
				source.Regex = text
				v.reportError(grid.CheckRegex(text))
			}
		}},
		"json": {jsonschema.Choice("stdout"), func(v yamlValue) {
			*given++
			if text, ok := v.text(); ok && text != "stdout" {
				v.report("Write json: stdout.", "metrics.json is %q", text)
			} else {
				source.JSON = text
			}
		}},
		"optional": boolField(&source.Optional),
	}
}

func readObjective(v yamlValue, t *task) {
	t.Objective = &grid.Objective{}
	if v.fields("objective.", "{metric: loss, goal: minimize}", objectiveFields(t.Objective)) &&
		(t.Objective.Metric == "" || t.Objective.Goal == "") {
		v.report("Write it like {metric: loss, goal: minimize}.", "the objective needs a metric and a goal")
	}
}

func objectiveFields(o *grid.Objective) map[string]field {
	return map[string]field{"metric": textField(&o.Metric), "goal": choiceField(&o.Goal, "maximize", "minimize")}
}

// maxRepeats bounds how often one point is repeated.
const maxRepeats = 1_000_000

// readStop reads which trials are stopped early. What the objective says about the metric is filled
// in when the task is used.
func readStop(v yamlValue, t *task) {
	t.Stop = &grid.EarlyStop{Rule: grid.StopMedian}
	if v.fields("stop.", "{metric: loss, rule: median, after: 5}", stopFields(t.Stop)) && t.Stop.After == 0 {
		v.report("Write it like {metric: loss, rule: median, after: 5}.",
			"stop has no after, the step from which trials may be stopped")
	}
}

func stopFields(e *grid.EarlyStop) map[string]field {
	step := parsed(func(text string) (float64, error) {
		f, err := strconv.ParseFloat(text, 64)
		if err == nil && (!(f > 0) || math.IsInf(f, 0)) {
			err = errors.New("out of range")
		}
		return f, err
	}, "", "Give a step from which trials may be stopped, like 5.")
	return map[string]field{
		"metric": textField(&e.Metric),
		"goal":   choiceField(&e.Goal, "minimize", "maximize"),
		"rule":   choiceField(&e.Rule, grid.StopMedian, grid.StopHalving),
		"after":  {jsonschema.Above(0), into(&e.After, step)},
	}
}

// failures reads a number of failures, with or without the word "failures"; 0 means no limit.
func failures(v yamlValue) (int64, bool) {
	return parsed(func(text string) (int64, error) {
		number, word, _ := strings.Cut(text, " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err == nil && (n < 0 || text != number && word != "failure" && word != "failures") {
			err = errors.New("not a number of failures")
		}
		return n, err
	}, "", "Write it like 5 failures, or 0 for no limit.")(v)
}

// readSample reads the number of points, or a map that also has the seed for drawing them.
func readSample(v yamlValue, t *task) {
	t.sample = &space.Sample{}
	fields := sampleFields(t.sample)
	if v.isText() {
		fields["size"].read(v)
		return
	}
	if v.fields("sample.", "{size: 100, seed: 1}", fields) && t.sample.Size == 0 {
		v.report("Write it like {size: 100, seed: 1}.", "%s has no size", v.what)
	}
}

func sampleFields(sample *space.Sample) map[string]field {
	seed := func(text string) (uint64, error) { return strconv.ParseUint(text, 10, 64) }
	return map[string]field{
		"size": {jsonschema.Positive, into(&sample.Size, wholeNumber(1, math.MaxInt64, ""))},
		"seed": {jsonschema.Count, into(&sample.Seed, parsed(seed, "", "Give a whole number from 0."))},
	}
}

func readExclude(v yamlValue, t *task) {
	if v.isText() {
		if text, ok := v.filled(); ok {
			t.exclude = []string{text}
		}
		return
	}
	texts, values := v.texts(`["batchsize == 500 and unit > 100"]`)
	for i, text := range texts {
		if strings.TrimSpace(text) == "" {
			values[i].report("Write a condition on the axes, or leave it out.", "an exclude expression is empty")
		}
	}
	t.exclude = texts
}

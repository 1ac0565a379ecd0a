package projects

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/problem"
)

// Setting is a field of a task as a flag of the command line sets it.
type Setting struct {
	Flag string // without its dashes
	Text string
}

// settings returns the flags that set fields of a task: for each, the field and its value as in
// project.yaml.
func settings() map[string]func(text string) (field string, value *yaml.Node, err error) {
	listed := func(field string) func(string) (string, *yaml.Node, error) {
		return func(text string) (string, *yaml.Node, error) { return field, sequence(scalar(text)), nil }
	}
	single := func(field string) func(string) (string, *yaml.Node, error) {
		return func(text string) (string, *yaml.Node, error) { return field, unquoted(text), nil }
	}
	resource := func(field string) func(string) (string, *yaml.Node, error) {
		return func(text string) (string, *yaml.Node, error) {
			return "resources", flowMap(scalar(field), unquoted(text)), nil
		}
	}
	return map[string]func(string) (string, *yaml.Node, error){
		"artifact": listed("artifacts"), "share": listed("share"), "exclude": listed("exclude"),
		"metric": metricSetting, "objective": objectiveSetting, "stop": stopSetting, "sample": sampleSetting,
		"repeat": single("repeat"), "setup": single("setup"), "venv": single("venv"), "order": single("order"),
		"timeout": single("timeout"), "retries": single("retries"), "stop-after": single("stop_after"),
		"cpus": resource("cpus"), "memory": resource("memory"), "gpus": resource("gpus"),
		"nodes": func(text string) (string, *yaml.Node, error) { // names and labels separated by commas
			n := sequence()
			for one := range strings.SplitSeq(text, ",") {
				n.Content = append(n.Content, scalar(strings.TrimSpace(one)))
			}
			return "nodes", n, nil
		},
	}
}

// metricSetting parses log:FILE, regex:EXPRESSION or json:stdout.
func metricSetting(text string) (string, *yaml.Node, error) {
	kind, rest, _ := strings.Cut(text, ":")
	if !slices.Contains([]string{"log", "regex", "json"}, kind) {
		return "", nil, fmt.Errorf("it does not begin with log:, regex: or json:. Write log:result/log, json:stdout " +
			"or 'regex:loss=(?P<loss>[0-9.]+)'")
	}
	return "metrics", sequence(flowMap(scalar(kind), scalar(rest))), nil
}

// objectiveSetting parses METRIC:min or METRIC:max.
func objectiveSetting(text string) (string, *yaml.Node, error) {
	at := strings.LastIndexByte(text, ':')
	goals := map[string]string{"min": "minimize", "minimize": "minimize", "max": "maximize", "maximize": "maximize"}
	goal := goals[text[at+1:]]
	if at < 1 || goal == "" {
		return "", nil, fmt.Errorf("it does not name a metric with a goal. Write loss:min or accuracy:max")
	}
	return "objective", flowMap(scalar("metric"), scalar(text[:at]), scalar("goal"), scalar(goal)), nil
}

// stopSetting parses RULE:AFTER.
func stopSetting(text string) (string, *yaml.Node, error) {
	rule, after, found := strings.Cut(text, ":")
	if !found {
		return "", nil, fmt.Errorf("it is not a rule with a step. Write median:5 or asha:5")
	}
	return "stop", flowMap(scalar("rule"), unquoted(rule), scalar("after"), unquoted(after)), nil
}

// sampleSetting parses SIZE or SIZE:SEED.
func sampleSetting(text string) (string, *yaml.Node, error) {
	size, seed, found := strings.Cut(text, ":")
	if !found {
		return "sample", unquoted(text), nil
	}
	return "sample", flowMap(scalar("size"), unquoted(size), scalar("seed"), unquoted(seed)), nil
}

// Apply sets fields of a task, or of the default task if the name is empty. The lists of artifacts,
// share and exclude are extended; any other field is replaced. The error names the flag.
func (p *Project) Apply(name string, all []Setting) error {
	at := slices.IndexFunc(p.tasks, func(t *task) bool { return t.Name == name || name == "" && t.Name == p.Default })
	if at < 0 || len(all) == 0 {
		return nil // Task reports what is wrong with the name
	}
	t := p.tasks[at]
	replaced := map[string]bool{}
	for _, one := range all {
		read := settings()[one.Flag]
		if read == nil {
			panic("projects: no field for --" + one.Flag) // the flags are compiled into the program
		}
		if strings.TrimSpace(one.Text) == "" {
			return fmt.Errorf("--%s is empty. Give a value, or leave it out", one.Flag)
		}
		field, value, err := read(one.Text)
		if err != nil {
			return fmt.Errorf("--%s %q does not work: %w", one.Flag, one.Text, err)
		}
		if field == "metrics" && !replaced[field] {
			t.Metrics = nil
		}
		if field == "setup" || field == "venv" {
			if other := map[string]string{"setup": "venv", "venv": "setup"}[field]; replaced[other] {
				return errors.New("--setup and --venv don't go together. Keep one of them; a setup step can make " +
					"the environment too")
			}
			t.replaceSetup()
		}
		artifacts, share, exclude := t.Artifacts, t.Share, t.exclude
		file := &strictFile{}
		taskFields(t)[field].read(yamlValue{file, field, value})
		if len(file.problems) > 0 {
			first := file.problems[0]
			return fmt.Errorf("--%s %q does not work: %s", one.Flag, one.Text,
				problem.Errorf(first.Hint, "%s", first.Msg))
		}
		switch field {
		case "artifacts":
			t.Artifacts = append(slices.Clip(artifacts), t.Artifacts...)
		case "share", "venv":
			t.Share = append(slices.Clip(share), t.Share...)
		case "exclude":
			t.exclude = append(slices.Clip(exclude), t.exclude...)
		}
		if p.document != nil {
			add(p.document, field, value, field == "metrics" && !replaced[field])
		}
		replaced[field] = true
	}
	return nil
}

// add puts a field into a map. If the map already has the field as a list or a map, add extends it
// unless replace is set.
func add(m *yaml.Node, field string, value *yaml.Node, replace bool) {
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value != field {
			continue
		}
		if old := m.Content[i+1]; value.Kind == yaml.ScalarNode || replace || old.Kind != value.Kind {
			m.Content[i+1] = value
		} else if value.Kind == yaml.MappingNode {
			for k := 0; k < len(value.Content); k += 2 {
				add(old, value.Content[k].Value, value.Content[k+1], true)
			}
		} else {
			old.Content = append(old.Content, value.Content...)
		}
		return
	}
	appendEntry(m, field, value)
}

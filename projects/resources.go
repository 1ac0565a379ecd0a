package projects

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
	"mlfnode/grid/units"
)

func (s *schema) resources(what string, n *yaml.Node, t *task) {
	r := &t.Resources
	before := len(s.problems)
	s.fields(what, n, "{cpus: 1, memory: 1GiB}", s.resourceFields(t))
	if err := cmp.Or(r.Check(), t.CheckMeasureBy()); err != nil && len(s.problems) == before {
		s.report(n, "", "%s", err)
	}
}

func (s *schema) resourceFields(t *task) map[string]field {
	r := &t.Resources
	return map[string]field{
		"cpus": {jsonschema.Above(0), func(what string, n *yaml.Node) {
			s.amount(what, n, &r.CPUs)
			if r.CPUs == 0 {
				s.report(n, "Give the cores that one trial uses, like 1 or 0.5.", "cpus is 0")
			}
		}},
		"memory": {jsonschema.Size, func(what string, n *yaml.Node) { s.size(what, n, &r.Memory) }},
		"gpus":   {jsonschema.Amount, func(what string, n *yaml.Node) { s.amount(what, n, &r.GPUs) }},
		"gpu_memory": {jsonschema.Any(jsonschema.Choice("auto"), jsonschema.Size), func(what string, n *yaml.Node) {
			if m := s.target(n); m != nil && m.Value == "auto" {
				r.GPUMemory = grid.GPUMemoryAuto
				return
			}
			s.size(what, n, &r.GPUMemory)
		}},
		"measure_by":  {jsonschema.Text, func(what string, n *yaml.Node) { t.MeasureBy, _ = s.filled(what, n) }},
		"gpu_profile": {jsonschema.Text, func(what string, n *yaml.Node) { r.GPUProfile, _ = s.filled(what, n) }},
		"gpu_model":   {jsonschema.Text, func(what string, n *yaml.Node) { r.GPUModel, _ = s.filled(what, n) }},
	}
}

// nodes reads which nodes may run trials.
func (s *schema) nodes(what string, n *yaml.Node, t *task) {
	var all []string
	if m := s.target(n); m != nil && m.Kind == yaml.ScalarNode {
		if text, ok := s.filled(what, n); ok {
			all = []string{text}
		}
	} else if all, _ = s.texts(what, n, "[gpu1, label=a100]"); len(all) == 0 {
		s.report(n, "Name nodes, or leave nodes out: then all may run trials.", "%s is empty", what)
	}
	t.Resources.Nodes = grid.NodeSetOf(all)
	if err := t.Resources.Nodes.Check(); err != nil {
		s.report(n, "", "%s", err)
	}
}

// gpuIDs reads the form in which a program expects the names of its GPUs.
func (s *schema) gpuIDs(what string, n *yaml.Node, t *task) {
	switch text, ok := s.filled(what, n); {
	case !ok, text == "uuid":
	case text == grid.GPUIDsIndex:
		t.GPUIDs = text
	default:
		s.report(n, "Write uuid or index.", "%s is %q", what, text)
	}
}

func (s *schema) order(what string, n *yaml.Node, t *task) {
	switch text, ok := s.filled(what, n); {
	case !ok:
	case text == "index":
		t.Order = grid.OrderIndex
	case slices.Contains(grid.Orders(), grid.Order(text)):
		t.Order = grid.Order(text)
	default:
		s.report(n, "Write index, spread or longest_first.", "%s is %q", what, text)
	}
}

// amount reads a count that may be a fraction.
func (s *schema) amount(what string, n *yaml.Node, to *grid.Milli) {
	text, ok := s.filled(what, n)
	if !ok {
		return
	}
	v, err := grid.ParseMilli(text)
	if err != nil || v < 0 || v > grid.MaxMilli {
		s.report(n, "Give a number like 1 or 0.5.", "%s is %q, which is not a valid number", what, text)
		return
	}
	*to = v
}

func (s *schema) size(what string, n *yaml.Node, to *int64) {
	text, ok := s.filled(what, n)
	if !ok {
		return
	}
	v, err := parseSize(text)
	if err != nil {
		s.report(n, "Write it like 1GiB, 500MB or as bytes.", "%s is %q, which is not a size", what, text)
		return
	}
	*to = v
}

func (s *schema) duration(what string, n *yaml.Node, to *time.Duration) {
	text, ok := s.filled(what, n)
	if !ok {
		return
	}
	v, err := ParseDuration(text)
	if err != nil {
		s.report(n, "Write it like 2h, 1h30m, 90s or 1d; a plain number is in seconds.", "%s is %q, which is not a duration", what, text)
		return
	}
	*to = v
}

// parseSize parses `1GiB`, `500MB`, `1.5 GiB` or plain bytes. A prefix without B, as in 1G, is
// refused: some read it as a power of 1000, others as a power of 1024.
func parseSize(text string) (int64, error) {
	if !regexp.MustCompile(`^([0-9]+(\.0+)?( ?B)?|[0-9]+(\.[0-9]+)? ?[kKMGTP]i?B)$`).MatchString(text) {
		return 0, fmt.Errorf("%q is not a size", text)
	}
	return units.ParseSize(text)
}

// ParseDuration parses `1d`, `1h30m`, `90s`, `500ms`, or a plain number of seconds, as in
// project.yaml.
func ParseDuration(text string) (time.Duration, error) {
	if regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`).MatchString(text) {
		text += "s"
	}
	return units.ParseDuration(text)
}

// retries reads one number for all counted classes, or a map by class.
func (s *schema) retries(what string, n *yaml.Node, t *task) {
	to := t.Retries
	if isText(n) {
		if v, ok := s.count(what, n); ok {
			for _, c := range grid.CountedClasses() {
				to[c] = v
			}
		}
		return
	}
	s.fields(what, n, "2 or {exit: 2, oom: 0}", s.retryFields(t))
}

func (s *schema) retryFields(t *task) map[string]field {
	known := map[string]field{}
	for _, c := range grid.SettableClasses() {
		escalates, form := slices.Contains(grid.EscalatedClasses(), c), jsonschema.Count
		if escalates {
			form = jsonschema.Any(jsonschema.Count, objectOf(s.escalationFields(t, c)))
		}
		known[string(c)] = field{form, func(what string, n *yaml.Node) {
			if m := s.target(n); m != nil && m.Kind == yaml.MappingNode && escalates {
				s.escalation(what, n, t, c)
			} else if v, ok := s.count(what, n); ok {
				t.Retries[c] = v
			}
		}}
	}
	return known
}

// escalation reads how often a trial runs again, and the factor by which its memory then grows.
func (s *schema) escalation(what string, n *yaml.Node, t *task, c grid.Class) {
	t.places["escalation"] = n
	s.fields(what, n, "{times: 2, memory: 1.5}", s.escalationFields(t, c))
}

func (s *schema) escalationFields(t *task, c grid.Class) map[string]field {
	return map[string]field{
		"times": {jsonschema.Count, func(what string, n *yaml.Node) {
			if v, ok := s.count(what, n); ok {
				t.Retries[c] = v
			}
		}},
		"memory": {jsonschema.Above(1), func(what string, n *yaml.Node) {
			text, ok := s.filled(what, n)
			if v, err := strconv.ParseFloat(text, 64); err == nil && v > 1 && v <= grid.MaxEscalation {
				if t.Escalate == nil {
					t.Escalate = map[grid.Class]float64{}
				}
				t.Escalate[c] = v
			} else if ok {
				s.report(n, fmt.Sprintf("Give a factor above 1, at most %d.", grid.MaxEscalation), "%s is %q, which is not a factor", what, text)
			}
		}},
	}
}

func (s *schema) count(what string, n *yaml.Node) (int, bool) {
	text, ok := s.filled(what, n)
	if !ok {
		return 0, false
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < 0 || v > grid.MaxRetries {
		s.report(n, fmt.Sprintf("Give a whole number from 0 to %d.", grid.MaxRetries), "%s is %q, which is not a number of retries", what, text)
		return 0, false
	}
	return v, true
}

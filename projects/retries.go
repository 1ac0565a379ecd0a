package projects

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
)

// readRetries reads one number for all counted classes, or a map by class.
func readRetries(v yamlValue, t *task) {
	if !v.isText() {
		v.fields("", "2 or {exit: 2, oom: 0}", retryFields(t))
	} else if n, ok := retryCount(v); ok {
		for _, c := range grid.CountedClasses() {
			t.Retries[c] = int(n)
		}
	}
}

func retryFields(t *task) map[string]field {
	known := map[string]field{}
	for _, c := range grid.SettableClasses() {
		readCount := func(v yamlValue) {
			if n, ok := retryCount(v); ok {
				t.Retries[c] = int(n)
			}
		}
		if !slices.Contains(grid.EscalatedClasses(), c) {
			known[string(c)] = field{jsonschema.Count, readCount}
			continue
		}
		// A map says how often a trial runs again, and the factor by which its memory then grows.
		escalation := map[string]field{
			"times": {jsonschema.Count, readCount},
			"memory": {jsonschema.Above(1), func(v yamlValue) {
				factor := parsed(func(text string) (float64, error) {
					f, err := strconv.ParseFloat(text, 64)
					if err == nil && !(f > 1 && f <= grid.MaxEscalation) {
						err = errors.New("out of range")
					}
					return f, err
				}, ", which is not a factor", fmt.Sprintf("Give a factor above 1, at most %d.", grid.MaxEscalation))
				if f, ok := factor(v); ok {
					if t.Escalate == nil {
						t.Escalate = map[grid.Class]float64{}
					}
					t.Escalate[c] = f
				}
			}},
		}
		known[string(c)] = field{jsonschema.Any(jsonschema.Count, objectOf(escalation)), func(v yamlValue) {
			if m := v.target(); m != nil && m.Kind == yaml.MappingNode {
				t.places["escalation"] = v
				v.fields("", "{times: 2, memory: 1.5}", escalation)
				return
			}
			readCount(v)
		}}
	}
	return known
}

package top

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// filterHelp explains how to write a filter.
const filterHelp = "failed running … lr=0.01 acc>=0.9 class=cuda_oom node=gpu-1"

// parseFilter parses a filter of trials: states, and conditions on parameters, metrics, class and
// node. Several conditions on the same name are alternatives.
func parseFilter(text string, s *api.Sweep) (q api.TrialQuery, err error) {
	q.Where = url.Values{}
	for word := range strings.FieldsSeq(text) {
		if slices.Contains(grid.States[:], grid.State(word)) {
			q.States = append(q.States, grid.State(word))
			continue
		}
		at := strings.IndexAny(word, "=<>")
		if at < 1 || at == len(word)-1 {
			return q, fmt.Errorf("%s is neither a state nor a condition; write: %s", clean(word), filterHelp)
		}
		name, of, value := word[:at], word[at:at+1], word[at+1:]
		if of != "=" && value[0] != '=' {
			return q, fmt.Errorf("a range includes its ends; write %s%s=%s", clean(name), of, clean(value))
		}
		value = strings.TrimPrefix(value, "=")
		switch of {
		case ">":
			value += ".."
		case "<":
			value = ".." + value
		}
		switch {
		case slices.Contains(s.Keys, name):
			q.Where.Add("p["+name+"]", value)
		case slices.Contains(s.Metrics, name):
			if of == "=" && !strings.Contains(value, "..") {
				value += ".." + value
			}
			q.Where.Add("m["+name+"]", value)
		case name == "state":
			q.States = append(q.States, grid.State(value))
		case name == "class":
			q.Class = grid.Class(value)
		case name == "node":
			q.Where.Add("node", value)
		default:
			return q, fmt.Errorf("%s has no parameter and no metric %s", clean(string(s.Sweep)), clean(name))
		}
	}
	return q, nil
}

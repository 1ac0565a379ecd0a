package grid

import (
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// MergeEnviron gives the KEY=value entries of the lists as one environment in which each name occurs once: of several
// entries with one name the last one stays, at the place of the first. Programs disagree on duplicates (getenv of the C
// library takes the first, bash the last), so whatever is handed to one goes through here. The lists are not changed.
func MergeEnviron(lists ...[]string) []string {
	n := 0
	for _, list := range lists {
		n += len(list)
	}
	merged := make([]string, 0, n)
	places := environPlaces.Get().(map[string]int)
	defer environPlaces.Put(places)
	clear(places)
	for _, list := range lists {
		for _, kv := range list {
			name := environName(kv)
			if at, ok := places[name]; ok {
				merged[at] = kv
				continue
			}
			places[name] = len(merged)
			merged = append(merged, kv)
		}
	}
	return merged
}

// environPlaces keeps the maps of MergeEnviron, which is called for each attempt.
var environPlaces = sync.Pool{New: func() any { return map[string]int{} }}

// environName is the name of a KEY=value entry; an entry without an equals sign is all name.
func environName(kv string) string {
	name, _, _ := strings.Cut(kv, "=")
	return name
}

// Environment is what all trials of the sweep have in their environment, each name once. From weakest to strongest: the
// environment of the submitting shell, or without one that of the node, which is node; the task's env, in whose values
// $NAME stands for a variable of the other two; what the user added to the submission. Entries that keep refuses stay out
// of the first.
func (s *Sweep) Environment(node []string, keep func(name string) bool) []string {
	base := s.Environ
	if len(base) == 0 {
		base = node
	}
	kept := make([]string, 0, len(base))
	for _, kv := range base {
		if name, _, ok := strings.Cut(kv, "="); ok && keep(name) {
			kept = append(kept, kv)
		}
	}
	known := map[string]string{}
	for _, kv := range MergeEnviron(kept, s.EnvironAdded) {
		name, value, _ := strings.Cut(kv, "=")
		known[name] = value
	}
	task := make([]string, 0, len(s.Task.Env))
	for _, name := range slices.Sorted(maps.Keys(s.Task.Env)) {
		task = append(task, name+"="+os.Expand(s.Task.Env[name], func(name string) string { return known[name] }))
	}
	return MergeEnviron(kept, task, s.EnvironAdded)
}

package grid

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
)

// MergeEnviron merges lists of KEY=value entries into one environment in which each name occurs
// once: the last entry of a name wins, at the position of the first. Programs disagree on
// duplicates (getenv of the C library takes the first, bash the last), so every environment passed
// to a program goes through MergeEnviron. It does not modify the lists.
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
			name, _, _ := strings.Cut(kv, "=") // an entry without an equals sign is all name
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

// environPlaces pools the maps of MergeEnviron, which runs for each attempt.
var environPlaces = sync.Pool{New: func() any { return map[string]int{} }}

// Environment returns the environment shared by all trials of the sweep, with each name once. From
// weakest to strongest, it consists of the environment of the submitting shell, or else that of the
// node; the task's env, whose values can refer to variables of the other two as $NAME; and the
// user's additions to the submission. Entries for which keep returns false are dropped from the
// first.
func (s *Sweep) Environment(node []string, keep func(name string) bool) []string {
	kept := s.shellEnvironment(node, keep)
	return s.environmentOver(kept, kept)
}

// shellEnvironment returns the environment of the submitting shell, or else that of the node,
// filtered by keep.
func (s *Sweep) shellEnvironment(node []string, keep func(name string) bool) []string {
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
	return kept
}

// ContainerEnvironment is like Environment for trials in a container. The task's env and the user's
// additions override own, the variables that the container sets; own overrides the image; and the
// image overrides the shell, which contributes only what an image cannot know. The task's env can
// refer to any variable of the shell that keep accepts as $NAME, so a task can request more of
// them.
func (s *Sweep) ContainerEnvironment(node, image, own []string, keep func(name string) bool) []string {
	inside := MergeEnviron(s.shellEnvironment(node, entersContainer), image, own)
	outside := s.shellEnvironment(node, keep)
	return s.environmentOver(MergeEnviron(outside, inside), inside)
}

// entersContainer reports whether a variable of the submitting shell has a meaning in any image:
// language, time zone and proxy settings. Paths of one system would break another.
func entersContainer(name string) bool {
	return name == "LANG" || name == "TZ" || strings.HasPrefix(name, "LC_") ||
		strings.HasSuffix(strings.ToLower(name), "_proxy")
}

// environmentOver applies the task's env and the user's additions to an environment. References in
// the task's values are looked up in named.
func (s *Sweep) environmentOver(named, kept []string) []string {
	known := map[string]string{}
	for _, kv := range MergeEnviron(named, s.EnvironAdded) {
		name, value, _ := strings.Cut(kv, "=")
		known[name] = value
	}
	task := make([]string, 0, len(s.Task.Env))
	for _, name := range slices.Sorted(maps.Keys(s.Task.Env)) {
		task = append(task, name+"="+expandVariables(s.Task.Env[name], known))
	}
	return MergeEnviron(kept, task, s.EnvironAdded)
}

// reference matches $$, $NAME and ${NAME} in a value of a task's env.
var reference = lazyregexp.New(`\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})`)

// expandVariables replaces $NAME and ${NAME} with their values in known, and $$ with a dollar sign.
// Any other dollar sign stays.
func expandVariables(text string, known map[string]string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	return reference.Get().ReplaceAllStringFunc(text, func(ref string) string {
		if ref == "$$" {
			return "$"
		}
		return known[strings.Trim(ref, "${}")]
	})
}

// CheckEnvValue returns an error if text cannot be the value of a variable in a task's env.
func CheckEnvValue(name, text string) error {
	if strings.ContainsRune(text, 0) {
		return problem.Errorf("Take it out.", "%s contains a zero byte", name)
	}
	for i := range text {
		if !strings.HasPrefix(text[i:], "${") {
			continue
		}
		dollars := len(text[:i+1]) - len(strings.TrimRight(text[:i+1], "$"))
		if at := reference.Get().FindStringIndex(text[i:]); dollars%2 == 1 && (at == nil || at[0] != 0) {
			return problem.Errorf("Write $$ for a dollar, or let a shell do it in the command.",
				"%s is %.60q, but only ${NAME} is replaced, no other form of ${…}", name, text)
		}
	}
	return nil
}

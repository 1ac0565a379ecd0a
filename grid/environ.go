package grid

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
)

// MergeEnviron returns the KEY=value entries of the lists as one environment in which each name occurs once: of several
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
	kept := s.shellEnvironment(node, keep)
	return s.environmentOver(kept, kept)
}

// shellEnvironment is what keep leaves of the environment of the submitting shell, or without one of that of the node.
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

// ContainerEnvironment is Environment for trials in a container: below what the task and the user say, own is what the container sets,
// which is stronger than the image, and the image is stronger than the shell, of which only what the image can't know goes in. $NAME
// in the task's env may stand for any variable of the shell that keep leaves: so a task asks for more.
func (s *Sweep) ContainerEnvironment(node, image, own []string, keep func(name string) bool) []string {
	inside := MergeEnviron(s.shellEnvironment(node, entersContainer), image, own)
	outside := s.shellEnvironment(node, keep)
	return s.environmentOver(MergeEnviron(outside, inside), inside)
}

// entersContainer reports whether a variable of the submitting shell means something in any image: language, time zone and the way to
// the network. Paths of one system break another.
func entersContainer(name string) bool {
	return name == "LANG" || name == "TZ" || strings.HasPrefix(name, "LC_") || strings.HasSuffix(strings.ToLower(name), "_proxy")
}

// environmentOver puts what the task and the user say over an environment. What the task's values refer to is looked up in named.
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

// reference is what stands for something else in a value of a task's env: a dollar for itself, or the name of a variable.
var reference = lazyregexp.New(`\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})`)

// expandVariables replaces $NAME and ${NAME} by what known has, and $$ by a dollar. Any other dollar is text.
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

// CheckEnvValue says why a text can't be the value of a variable in a task's env.
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
			return problem.Errorf("Write $$ for a dollar, or let a shell do it in the command.", "%s is %.60q, and of ${…} only ${NAME} is replaced", name, text)
		}
	}
	return nil
}

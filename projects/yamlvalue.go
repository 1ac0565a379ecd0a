package projects

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// maxAliased bounds the values that are reached through aliases, so that a small file can't expand
// to a huge one.
const maxAliased = 100_000

// strictFile is a YAML file whose values are checked while they are read. It collects all problems.
type strictFile struct {
	name     string
	problems problem.List
	aliased  int // values reached through aliases
}

// full reports whether there are so many problems that reading on is pointless.
func (f *strictFile) full() bool { return len(f.problems) >= problem.MaxListed }

// yamlValue is a value in a file.
type yamlValue struct {
	file *strictFile
	what string // the name of the value in messages
	node *yaml.Node
}

// report adds a problem of the value.
func (v yamlValue) report(hint, format string, args ...any) {
	v.file.problems.Add(yamlfile.ProblemAt(v.file.name, v.node, fmt.Sprintf(format, args...), hint))
}

// reportError reports an error that includes a hint, unless it is nil.
func (v yamlValue) reportError(err error) {
	if err != nil {
		v.report("", "%s", err)
	}
}

// target follows an alias and counts the values reached through it. It returns nil if there are too
// many.
func (v yamlValue) target() *yaml.Node {
	t := yamlfile.Resolve(v.node)
	if t == v.node {
		return t
	}
	before := v.file.aliased
	v.file.aliased += 1 + len(t.Content)
	if before > maxAliased {
		return nil // already reported
	}
	if v.file.aliased > maxAliased {
		v.report("Write the values out where they are used.",
			"the file's aliases stand for more than %d values", maxAliased)
		return nil
	}
	return t
}

// isText reports whether the value is a scalar, possibly through an alias.
func (v yamlValue) isText() bool { return yamlfile.Resolve(v.node).Kind == yaml.ScalarNode }

// entries walks a map with text keys and reports keys that are not text or that are duplicates. The
// name of each value is its key.
func (v yamlValue) entries(example string, each func(key, value yamlValue)) {
	t := v.target()
	if t == nil {
		return
	}
	if t.Kind != yaml.MappingNode || foreignTag(t, "!!map") {
		v.report("Write it like "+example+".", "%s is not a map", v.what)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(t.Content) && !v.file.full(); i += 2 {
		name := t.Content[i].Value
		key, value := yamlValue{v.file, name, t.Content[i]}, yamlValue{v.file, name, t.Content[i+1]}
		switch line, twice := seen[name]; {
		case key.node.Kind != yaml.ScalarNode || foreignTag(key.node, "!!str"):
			key.report("Write the key as plain text.", "a key of %s is not a text", v.what)
		case name == "<<":
			key.report("Write the fields out.", "merge keys (<<) are not supported")
		case twice:
			key.report("Keep one of them.", "%s has %s twice, first in line %d", v.what, name, line)
		default:
			seen[name] = key.node.Line
			each(key, value)
		}
	}
}

// fields reads a map whose keys are known, and reports whether it found no problem. The names of
// its values begin with prefix.
func (v yamlValue) fields(prefix, example string, known map[string]field) bool {
	before := len(v.file.problems)
	v.entries(example, func(key, value yamlValue) {
		f, ok := known[key.what]
		if !ok {
			names := slices.Sorted(maps.Keys(known))
			hint := "Known here: " + strings.Join(names, ", ") + "."
			if near := problem.Nearest(key.what, names); len(near) > 0 {
				hint = "Did you mean " + near[0] + "?"
			}
			key.report(hint, "%s has the unknown field %q", v.what, key.what)
			return
		}
		if isNull(value.node) {
			value.report("Give a value, or leave the field out.", "%s has no value", key.what)
			return
		}
		value.what = prefix + key.what
		f.read(value)
	})
	return len(v.file.problems) == before
}

// text returns a scalar as it is written.
func (v yamlValue) text() (string, bool) {
	t := v.target()
	switch {
	case t == nil:
		return "", false
	case t.Kind != yaml.ScalarNode || isNull(t):
		v.report("Write one text, in quotes if it has special characters.", "%s is not a text", v.what)
	case foreignTag(t, "!!str"):
		v.report("Leave the tag out.", "%s has the unknown tag %s", v.what, t.ShortTag())
	case strings.ContainsRune(t.Value, 0):
		v.report("Take it out.", "%s contains a zero byte", v.what)
	default:
		return t.Value, true
	}
	return "", false
}

// filled returns text that must not be empty.
func (v yamlValue) filled() (string, bool) {
	text, ok := v.text()
	if ok && strings.TrimSpace(text) == "" {
		v.report("Give a value, or leave the field out.", "%s is empty", v.what)
		return "", false
	}
	return text, ok
}

// texts returns a list of texts, and the value of each.
func (v yamlValue) texts(example string) (texts []string, values []yamlValue) {
	t := v.target()
	if t == nil {
		return nil, nil
	}
	if t.Kind != yaml.SequenceNode || foreignTag(t, "!!seq") {
		v.report("Write it like "+example+".", "%s is not a list", v.what)
		return nil, nil
	}
	for _, n := range t.Content {
		if v.file.full() {
			break
		}
		value := yamlValue{v.file, "a value of " + v.what, n}
		if text, ok := value.text(); ok {
			texts, values = append(texts, text), append(values, value)
		}
	}
	return texts, values
}

// truth returns true or false.
func (v yamlValue) truth() (truth, ok bool) {
	t := v.target()
	if t == nil {
		return false, false
	}
	if t.Kind != yaml.ScalarNode || t.ShortTag() != "!!bool" || t.Decode(&truth) != nil {
		v.report("Write true or false.", "%s is neither true nor false", v.what)
		return false, false
	}
	return truth, true
}

// into returns the reader of a field that stores a valid value in to.
func into[T any](to *T, read func(yamlValue) (T, bool)) func(yamlValue) {
	return func(v yamlValue) {
		if x, ok := read(v); ok {
			*to = x
		}
	}
}

// parsed returns a reader of text that must be valid for parse. The message about any other text is
// that the value is this text, followed by the fault.
func parsed[T any](parse func(text string) (T, error), fault, hint string) func(yamlValue) (T, bool) {
	return func(v yamlValue) (x T, ok bool) {
		text, ok := v.filled()
		if !ok {
			return x, false
		}
		x, err := parse(text)
		if err != nil {
			v.report(hint, "%s is %q%s", v.what, text, fault)
		}
		return x, err == nil
	}
}

// oneOf returns a reader of one of several texts.
func oneOf[T ~string](choices ...T) func(yamlValue) (T, bool) {
	return parsed(func(text string) (T, error) {
		if !slices.Contains(choices, T(text)) {
			return "", errors.New("not a choice")
		}
		return T(text), nil
	}, "", problem.WriteOneOf(choices))
}

// foreignTag reports whether a value has an explicit tag other than its own.
func foreignTag(n *yaml.Node, own string) bool {
	return n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != own
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && yamlfile.IsPlain(n) &&
		(n.Value == "" || n.Value == "~" || strings.EqualFold(n.Value, "null"))
}

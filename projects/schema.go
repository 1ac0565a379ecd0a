package projects

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/jsonschema"
	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// maxAliased bounds the values that are reached through aliases, so that a small file can't expand
// to a huge one.
const maxAliased = 100_000

// schema parses the nodes of one strict YAML file and collects all problems.
type schema struct {
	file     string
	problems problem.List
	aliased  int
}

// field is one known key of a map: the form of its value, for editors, and the function that reads
// its node. The argument what names the field in messages.
type field struct {
	form jsonschema.Form
	read func(what string, n *yaml.Node)
}

func (s *schema) report(n *yaml.Node, hint, format string, args ...any) {
	s.problems.Add(yamlfile.ProblemAt(s.file, n, fmt.Sprintf(format, args...), hint))
}

// target follows an alias and counts the values reached through it. It returns nil if there are too
// many.
func (s *schema) target(n *yaml.Node) *yaml.Node {
	t := n
	for t.Kind == yaml.AliasNode {
		t = t.Alias
	}
	if t == n {
		return t
	}
	before := s.aliased
	s.aliased += 1 + len(t.Content)
	if before > maxAliased {
		return nil // already reported
	}
	if s.aliased > maxAliased {
		s.report(n, "Write the values out where they are used.", "the file's aliases stand for more than %d values", maxAliased)
		return nil
	}
	return t
}

// full reports whether there are so many problems that reading on is pointless.
func (s *schema) full() bool { return len(s.problems) >= problem.MaxListed }

// entries walks a map with text keys and reports keys that are not text or that are duplicates.
func (s *schema) entries(what string, n *yaml.Node, example string, each func(key, value *yaml.Node)) {
	t := s.target(n)
	if t == nil {
		return
	}
	if t.Kind != yaml.MappingNode || foreignTag(t, "!!map") {
		s.report(n, "Write it like "+example+".", "%s is not a map", what)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(t.Content) && !s.full(); i += 2 {
		key, value := t.Content[i], t.Content[i+1]
		switch line, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode || foreignTag(key, "!!str"):
			s.report(key, "Write the key as plain text.", "a key of %s is not a text", what)
		case key.Value == "<<":
			s.report(key, "Write the fields out.", "merge keys (<<) are not supported")
		case twice:
			s.report(key, "Keep one of them.", "%s has %s twice, first in line %d", what, key.Value, line)
		default:
			seen[key.Value] = key.Line
			each(key, value)
		}
	}
}

// fields reads a map whose keys are known.
func (s *schema) fields(what string, n *yaml.Node, example string, known map[string]field) {
	s.entries(what, n, example, func(key, value *yaml.Node) {
		f, ok := known[key.Value]
		if !ok {
			hint := "Known here: " + strings.Join(names(known), ", ") + "."
			if near := problem.Nearest(key.Value, names(known)); len(near) > 0 {
				hint = "Did you mean " + near[0] + "?"
			}
			s.report(key, hint, "%s has the unknown field %q", what, key.Value)
			return
		}
		if isNull(value) {
			s.report(value, "Give a value, or leave the field out.", "%s has no value", key.Value)
			return
		}
		f.read(key.Value, value)
	})
}

// text returns a scalar as it is written.
func (s *schema) text(what string, n *yaml.Node) (string, bool) {
	t := s.target(n)
	switch {
	case t == nil:
		return "", false
	case t.Kind != yaml.ScalarNode || isNull(t):
		s.report(n, "Write one text, in quotes if it has special characters.", "%s is not a text", what)
	case foreignTag(t, "!!str"):
		s.report(n, "Leave the tag out.", "%s has the unknown tag %s", what, t.ShortTag())
	case strings.ContainsRune(t.Value, 0):
		s.report(n, "Take it out.", "%s contains a zero byte", what)
	default:
		return t.Value, true
	}
	return "", false
}

// filled returns text that must not be empty.
func (s *schema) filled(what string, n *yaml.Node) (string, bool) {
	v, ok := s.text(what, n)
	if ok && strings.TrimSpace(v) == "" {
		s.report(n, "Give a value, or leave the field out.", "%s is empty", what)
		return "", false
	}
	return v, ok
}

// texts returns a list of texts, with the node of each.
func (s *schema) texts(what string, n *yaml.Node, example string) (texts []string, nodes []*yaml.Node) {
	t := s.target(n)
	if t == nil {
		return nil, nil
	}
	if t.Kind != yaml.SequenceNode || foreignTag(t, "!!seq") {
		s.report(n, "Write it like "+example+".", "%s is not a list", what)
		return nil, nil
	}
	for _, c := range t.Content {
		if s.full() {
			break
		}
		if v, ok := s.text("a value of "+what, c); ok {
			texts, nodes = append(texts, v), append(nodes, c)
		}
	}
	return texts, nodes
}

// truth reads true or false.
func (s *schema) truth(what string, n *yaml.Node, otherwise bool) bool {
	v := otherwise
	if t := s.target(n); t != nil && (t.Kind != yaml.ScalarNode || t.ShortTag() != "!!bool" || t.Decode(&v) != nil) {
		s.report(n, "Write true or false.", "%s is neither true nor false", what)
	}
	return v
}

// isText reports whether the node is a scalar, possibly through an alias.

func isText(n *yaml.Node) bool {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Kind == yaml.ScalarNode
}

func foreignTag(n *yaml.Node, own string) bool {
	return n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != own
}

func isNull(n *yaml.Node) bool {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle | yaml.TaggedStyle
	if n.Kind != yaml.ScalarNode || n.Style&quoted != 0 {
		return false
	}
	return n.Value == "" || n.Value == "~" || strings.EqualFold(n.Value, "null")
}

func names[V any](known map[string]V) []string {
	list := make([]string, 0, len(known))
	for name := range known {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

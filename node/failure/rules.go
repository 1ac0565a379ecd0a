package failure

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

//go:embed rules.yaml
var builtin []byte

const (
	maxRules   = 200  // of one file
	maxPattern = 4096 // bytes
)

// Rules are what Classify decides by. They are immutable.
type Rules struct {
	output   []*rule
	patterns []pattern
	noise    []*regexp.Regexp // lines about something after which the program went on
	indirect []*regexp.Regexp // exceptions that only say that something else failed
	matcher  *matcher
}

// pattern is an expression for one line of output, if possible without alternatives: those become
// separate patterns, so that the matcher finds which of them to try.
type pattern struct {
	re       func() *regexp.Regexp // compiled on first use: few are ever tried
	literals []string              // see func literals
}

// rule assigns a class to output with a line that matches one of the patterns.
type rule struct {
	name     string
	class    grid.Class
	patterns []int // without any, the circumstances alone decide
	unless   []*regexp.Regexp
	after    []*regexp.Regexp // one of the preceding lines must match one of them
	when     []string
	codes    []int
	hint     string
}

// Source is a file with rules.
type Source struct {
	Name string // for messages
	Text []byte
}

// FileName is the name of a file with rules: the node's in its state folder, the project's in its
// own folder.
const FileName = "failures.yaml"

// ReadFile reads the rules of a folder; nil when it has none.
func ReadFile(dir string) ([]Source, error) {
	file := filepath.Join(dir, FileName)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []Source{{Name: file, Text: text}}, nil
}

// NewRules reads the rules of these files, which take precedence, and the built-in ones. It reports
// all problems of a file.
func NewRules(files ...Source) (*Rules, error) {
	r := &Rules{}
	for i, file := range append(files, Source{"built-in rules", builtin}) {
		reader := ruleReader{rules: r, file: file.Name, builtin: i == len(files)}
		if err := reader.read(file.Text); err != nil {
			return nil, err
		}
	}
	words := make([][]string, len(r.patterns))
	for i := range r.patterns {
		words[i] = r.patterns[i].literals
	}
	r.matcher = newMatcher(words)
	return r, nil
}

// ruleReader reads one file of rules.
type ruleReader struct {
	rules    *Rules
	file     string
	builtin  bool
	problems problem.List
}

func (d *ruleReader) report(n *yaml.Node, hint, format string, args ...any) {
	d.problems.Add(yamlfile.ProblemAt(d.file, n, fmt.Sprintf(format, args...), hint))
}

func (d *ruleReader) read(text []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", d.file, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	known := map[string]func(*yaml.Node){"rules": func(n *yaml.Node) { d.readRules(n, &d.rules.output) }}
	if d.builtin {
		known["noise"] = func(n *yaml.Node) { d.rules.noise = d.readExpressions(n) }
		known["indirect"] = func(n *yaml.Node) { d.rules.indirect = d.readExpressions(n) }
	}
	d.readFields(doc.Content[0], "the file", known)
	return d.problems.Err()
}

// readFields passes each value of a map to its reader.
func (d *ruleReader) readFields(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.report(n, "Write it as `field: value` lines.", "%s is not a map", what)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if read := known[key.Value]; read != nil {
			read(n.Content[i+1])
			continue
		}
		d.report(
			key, "Known here: "+strings.Join(slices.Sorted(maps.Keys(known)), ", ")+".", "%s has the unknown field %q",
			what, key.Value,
		)
	}
}

func (d *ruleReader) readRules(n *yaml.Node, to *[]*rule) {
	if n.Kind != yaml.SequenceNode {
		d.report(n, "Write it as a list of `- class: …` entries.", "rules is not a list")
		return
	}
	if len(n.Content) > maxRules {
		d.report(n, "Join patterns of one class.", "the file has %d rules, more than %d", len(n.Content), maxRules)
		return
	}
	for _, item := range n.Content {
		r := &rule{name: fmt.Sprintf("%s:%d", d.file, item.Line)}
		d.readFields(item, "a rule", map[string]func(*yaml.Node){
			"name":   func(n *yaml.Node) { r.name = d.readText(n) },
			"class":  func(n *yaml.Node) { r.class = d.readClass(n) },
			"match":  func(n *yaml.Node) { r.patterns = d.readPatterns(n) },
			"unless": func(n *yaml.Node) { r.unless = d.readExpressions(n) },
			"after":  func(n *yaml.Node) { r.after = d.readExpressions(n) },
			"when":   func(n *yaml.Node) { r.when = d.readConditions(n) },
			"codes":  func(n *yaml.Node) { r.codes = d.readCodes(n) },
			"hint":   func(n *yaml.Node) { r.hint = d.readText(n) },
		})
		switch {
		case r.class == "" && item.Kind == yaml.MappingNode:
			d.report(item, "Give `class: …`.", "a rule has no class")
		case len(r.patterns)+len(r.codes)+len(r.when) == 0 && item.Kind == yaml.MappingNode:
			d.report(item, "Give `match: …`.", "a rule has nothing to match")
		}
		*to = append(*to, r)
	}
}

// items returns the values of a list, or the one value.
func items(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return []*yaml.Node{n}
}

func (d *ruleReader) readText(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || strings.TrimSpace(n.Value) == "" {
		d.report(n, "Write one line of text.", "a value is not text")
		return ""
	}
	return n.Value
}

func (d *ruleReader) readClass(n *yaml.Node) grid.Class {
	class := grid.Class(d.readText(n))
	if known := grid.SettableClasses(); class != "" && !slices.Contains(known, class) {
		names := make([]string, len(known))
		for i, c := range known {
			names[i] = string(c)
		}
		d.report(
			n, "Known: "+strings.Join(names, ", ")+".", "%q is not a failure class that a rule may give", string(class),
		)
	}
	return class
}

// parseExpression reads an expression for lines; nil for an invalid one.
func (d *ruleReader) parseExpression(n *yaml.Node) *syntax.Regexp {
	text := d.readText(n)
	if len(text) > maxPattern {
		d.report(n, "Split it into several.", "a pattern has %d bytes, more than %d", len(text), maxPattern)
		return nil
	}
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		d.report(
			n, "Go's regular expressions are those of RE2.", "%s",
			strings.TrimPrefix(err.Error(), "error parsing regexp: "),
		)
		return nil
	}
	return re
}

func (d *ruleReader) readExpressions(n *yaml.Node) (all []*regexp.Regexp) {
	for _, item := range items(n) {
		if d.parseExpression(item) != nil {
			all = append(all, regexp.MustCompile(item.Value))
		}
	}
	return all
}

// readPatterns adds the alternatives of these expressions to the rules' patterns, and returns their
// indexes.
func (d *ruleReader) readPatterns(n *yaml.Node) (all []int) {
	for _, item := range items(n) {
		if re := d.parseExpression(item); re != nil {
			for _, p := range splitAlternatives(re) {
				all = append(all, len(d.rules.patterns))
				d.rules.patterns = append(d.rules.patterns, p)
			}
		}
	}
	return all
}

func (d *ruleReader) readConditions(n *yaml.Node) (names []string) {
	for _, item := range items(n) {
		name := d.readText(item)
		if conditions[name] == nil {
			d.report(
				item, "Known: "+strings.Join(slices.Sorted(maps.Keys(conditions)), ", ")+".", "%q is not a condition",
				name,
			)
			continue
		}
		names = append(names, name)
	}
	return names
}

func (d *ruleReader) readCodes(n *yaml.Node) (codes []int) {
	for _, item := range items(n) {
		code, err := strconv.Atoi(d.readText(item))
		if err != nil || code < 1 || code > 255 {
			d.report(item, "Give numbers from 1 to 255.", "%q is not an exit code", item.Value)
			continue
		}
		codes = append(codes, code)
	}
	return codes
}

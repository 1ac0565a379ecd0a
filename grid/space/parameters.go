package space

import (
	"encoding/json"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// maxAliased bounds the values that come from aliases, so that a small file cannot expand to a huge
// one.
const maxAliased = 100_000

// ParseParameters parses a parameters file. A file *.csv, *.tsv, *.jsonl or *.ndjson is a list of
// points, see parseTable; any other file is a parameters.yml, in which every key is an axis, in the
// order of the file. A scalar is a single value and a list holds several; a list within it holds
// the arguments of one value. An interval is `!!python/tuple [start, end, step]` or {start: , end:
// , step: }; {linspace: [a, b, n]} and {logspace: [a, b, n]} are described at Axis; zip: {a: [1,
// 2], b: [x, y]} lists zipped axes. Scalars keep their source text. The error is of type
// problem.List and holds up to problem.MaxListed problems, with name as the name of the file. An
// empty file has no axes.
func ParseParameters(name string, data []byte) ([]Axis, error) {
	if read := tableReader(name); read != nil {
		return parseTable(name, data, read)
	}
	root, err := yamlfile.Parse(name, data)
	if err != nil || root == nil {
		return nil, err
	}
	p := parameters{file: name, seen: map[string]int{}}
	if root.Kind != yaml.MappingNode {
		p.report(root,
			problem.Errorf("Write lines like batchsize: [50, 100].", "the file is not a map of parameters to values"))
		return nil, p.problems.Err()
	}
	if root.Style&yaml.TaggedStyle != 0 && root.Tag != "!!map" {
		p.report(root, unknownTag("the file", root))
	}
	var axes []Axis
	for i := 0; i+1 < len(root.Content); i += 2 {
		if zips := zipsOf(root.Content[i], root.Content[i+1]); zips != nil {
			if _, f := p.key(root.Content[i]); f != nil {
				p.report(root.Content[i], f)
			}
			axes = append(axes, p.zips(zips)...)
		} else if a, ok := p.axis(root.Content[i], root.Content[i+1]); ok {
			axes = append(axes, a)
		}
	}
	if err := p.problems.Err(); err != nil {
		return nil, err
	}
	return axes, nil
}

// parameters collects the problems of a file.
type parameters struct {
	file     string
	problems problem.List
	seen     map[string]int // line of each key
	repeats  bool           // values may repeat
	aliased  int
}

func (p *parameters) report(n *yaml.Node, f *problem.Error) {
	p.problems.Add(yamlfile.ProblemAt(p.file, n, f.Msg, f.Hint))
}

func (p *parameters) axis(keyNode, n *yaml.Node) (Axis, bool) {
	key, f := p.key(keyNode)
	if f != nil {
		p.report(keyNode, f)
		return Axis{}, false
	}
	before := len(p.problems)
	a := Axis{Key: key}
	p.values(&a, n)
	if len(p.problems) > before || len(p.problems) == problem.MaxListed {
		return a, false
	}
	if _, f := newSeries(a); f != nil {
		p.report(n, f)
		return a, false
	}
	return a, true
}

// zipsOf returns the maps of zipped axes, if the key is zip and its value is a list of maps or a
// map that is not a formula.
func zipsOf(key, n *yaml.Node) []*yaml.Node {
	if key.Value != "zip" || n.Style&yaml.TaggedStyle != 0 {
		return nil
	}
	maps := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		maps = n.Content
	}
	isZip := func(m *yaml.Node) bool {
		return m.Kind == yaml.MappingNode && len(m.Content) > 0 && !isFormulaWord(m.Content[0].Value)
	}
	for _, m := range maps {
		if !isZip(m) {
			return nil
		}
	}
	return maps
}

func isFormulaWord(s string) bool {
	return s != "" && strings.Contains(" start end step linspace logspace ", " "+s+" ")
}

// zips parses zipped axes.
func (p *parameters) zips(maps []*yaml.Node) (axes []Axis) {
	p.repeats = true
	defer func() { p.repeats = false }()
	for _, m := range maps {
		var a Axis
		before := len(p.problems)
		for i := 0; i+1 < len(m.Content); i += 2 {
			key, f := p.key(m.Content[i])
			if f != nil {
				p.report(m.Content[i], f)
				continue
			}
			z := Axis{Key: key}
			p.values(&z, m.Content[i+1])
			a.Zip = append(a.Zip, z)
		}
		if len(p.problems) > before {
			continue
		}
		a = a.unzipped()
		if f := a.check(); f != nil {
			p.report(m, f)
			continue
		}
		axes = append(axes, a)
	}
	return axes
}

func (p *parameters) key(n *yaml.Node) (string, *problem.Error) {
	const hint = "Write the key as plain text, or in quotes."
	switch {
	case n.Kind != yaml.ScalarNode:
		return "", problem.Errorf(hint, "a key is not text")
	case n.Style&yaml.TaggedStyle != 0:
		return "", problem.Errorf(hint, "a key has the tag %s", n.ShortTag())
	case yamlfile.IsPlain(n) && n.Value == "<<":
		return "", problem.Errorf("Write the parameters out.", "merge keys (<<) are not supported")
	}
	if v, f := scalarText("a key", n); f != nil || v.Kind == True || v.Kind == False {
		return "", problem.Errorf(hint, "the key %q is not text", n.Value)
	}
	if f := checkKey(n.Value); f != nil {
		return "", f
	}
	if line, twice := p.seen[n.Value]; twice {
		return "", problem.Errorf("Put all its values in one list.", "the key %s is given twice, first in line %d",
			n.Value, line)
	}
	p.seen[n.Value] = n.Line
	return n.Value, nil
}

// values parses the value of a key.
func (p *parameters) values(a *Axis, n *yaml.Node) {
	target := yamlfile.Resolve(n)
	switch target.Kind {
	case yaml.SequenceNode:
		p.sequence(a, n, target)
	case yaml.MappingNode:
		if n != target {
			p.report(n, problem.Errorf("Write the formula out.", "%s is an alias to a map", a.Key))
			return
		}
		p.formula(a, n)
	default:
		if v, ok := p.scalar(a.Key, n); ok {
			a.Values = []Value{v}
		}
	}
}

func (p *parameters) sequence(a *Axis, n, target *yaml.Node) {
	if n != target {
		p.aliased += len(target.Content)
	}
	switch {
	case p.aliased > maxAliased:
		p.tooAliased(n)
	case target.Style&yaml.TaggedStyle != 0 && target.Tag == "!!python/tuple":
		a.Interval = p.numbers(a.Key, target)
	case target.Style&yaml.TaggedStyle != 0 && target.Tag != "!!seq":
		p.report(n, unknownTag(a.Key, target))
	case len(target.Content) == 0:
		p.report(n, problem.Errorf("Give it one value or more, or leave the key out.", "%s has an empty list", a.Key))
	default:
		p.list(a, target)
	}
}

// list parses explicit values and reports a repeated one at its position.
func (p *parameters) list(a *Axis, n *yaml.Node) {
	known := &list{index: map[Value]int64{}}
	for _, c := range n.Content {
		v, ok := p.value(a.Key, c)
		if !ok {
			if len(p.problems) == problem.MaxListed {
				return
			}
			continue
		}
		if !p.repeats && contains(known.find, v) {
			p.report(c, problem.Errorf("Keep it once: it would run the same point again.", "%s has the value %s twice",
				a.Key, abbreviate(v)))
			continue
		}
		known.index[v] = 0
		a.Values = append(a.Values, v)
	}
}

// value parses a value of a list: a scalar, or a list of arguments.
func (p *parameters) value(what string, n *yaml.Node) (Value, bool) {
	target := yamlfile.Resolve(n)
	if target.Kind != yaml.SequenceNode || target.Style&yaml.TaggedStyle != 0 {
		return p.scalar(what, n)
	}
	if n != target {
		p.aliased += len(target.Content)
	}
	var items []Value
	for _, c := range target.Content {
		v, ok := p.scalar(what, c)
		if !ok || p.aliased > maxAliased {
			return v, ok && p.tooAliased(n)
		}
		items = append(items, v)
	}
	if len(items) == 0 {
		p.report(n, problem.Errorf("Give it one argument or more, or write false to leave the option out.",
			"%s has an empty list among its values", what))
		return Value{}, false
	}
	return listOf(items), true
}

func (p *parameters) tooAliased(n *yaml.Node) bool {
	p.report(n, problem.Errorf("Write the values out where they are used.",
		"the file's aliases stand for more than %d values", maxAliased))
	return false
}

func (p *parameters) scalar(what string, n *yaml.Node) (Value, bool) {
	v, wrong := ScalarValue(p.file, what, n)
	if wrong != nil {
		p.problems.Add(*wrong)
	}
	return v, wrong == nil
}

// numbers returns the parts of a formula. The check of the axis rejects parts that are not numbers.
func (p *parameters) numbers(key string, n *yaml.Node) []json.Number {
	numbers := []json.Number{}
	for _, c := range n.Content {
		if v, ok := p.scalar(key, c); ok {
			numbers = append(numbers, json.Number(v.Text))
		}
	}
	if len(numbers) == 0 && len(n.Content) == 0 {
		_, f := newInterval(key, nil)
		p.report(n, f)
	}
	return numbers
}

// formula parses {start: , end: , step: }, {linspace: [a, b, n]} or {logspace: [a, b, n]}.
func (p *parameters) formula(a *Axis, n *yaml.Node) {
	const hint = "A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; " +
		"give nested parameters their own keys."
	if n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!map" {
		p.report(n, unknownTag(a.Key, n))
		return
	}
	parts := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch known := k.Kind == yaml.ScalarNode && isFormulaWord(k.Value); {
		case !known:
			p.report(k, problem.Errorf(hint, "%s is a map with the unknown key %q", a.Key, k.Value))
			return
		case parts[k.Value] != nil:
			p.report(k, problem.Errorf("Keep one of them.", "%s has %s twice", a.Key, k.Value))
			return
		}
		parts[k.Value] = n.Content[i+1]
	}
	line, log := parts["linspace"], parts["logspace"]
	switch {
	case line != nil && len(parts) == 1:
		a.Linspace = p.spaced(a.Key, "linspace", line)
	case log != nil && len(parts) == 1:
		a.Logspace = p.spaced(a.Key, "logspace", log)
	case line != nil || log != nil || parts["start"] == nil || parts["end"] == nil:
		p.report(n, problem.Errorf(hint, "%s is a map, but not a formula", a.Key))
	default:
		for _, name := range []string{"start", "end", "step"} {
			if part := parts[name]; part != nil {
				if v, ok := p.scalar(a.Key+"."+name, part); ok {
					a.Interval = append(a.Interval, json.Number(v.Text))
				}
			}
		}
	}
}

func (p *parameters) spaced(key, form string, n *yaml.Node) []json.Number {
	if n.Kind != yaml.SequenceNode || n.Style&yaml.TaggedStyle != 0 || len(n.Content) != 3 {
		p.report(n, problem.Errorf("Give a, b and n, like ["+spacedExample(form)+"].",
			"%s needs a list of three numbers for %s", key, form))
		return nil
	}
	return p.numbers(key, n)
}

package space

import (
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// ScalarValue returns the value of a YAML scalar, or of an alias to one, with its source text. The
// problem is nil on success; its message refers to the scalar as what.
func ScalarValue(file, what string, n *yaml.Node) (Value, *problem.InFile) {
	v, f := scalar(what, yamlfile.Resolve(n))
	if f != nil {
		p := yamlfile.ProblemAt(file, n, f.Msg, f.Hint)
		return Value{}, &p
	}
	return v, nil
}

func scalar(what string, n *yaml.Node) (Value, *problem.Error) {
	switch n.Kind {
	case yaml.SequenceNode:
		return Value{}, problem.Errorf("Write the arguments in one flat list.", "%s has a list in a list", what)
	case yaml.MappingNode:
		return Value{}, problem.Errorf("Give every parameter its own key at the left margin.",
			"%s has a map among its values", what)
	}
	v, f := scalarText(what, n)
	if f == nil {
		f = checkValue(what, v)
	}
	return v, f
}

func scalarText(what string, n *yaml.Node) (Value, *problem.Error) {
	tagged := n.Style&yaml.TaggedStyle != 0
	switch {
	case tagged && n.Tag == "!!str":
		return Value{Text: n.Value}, nil
	case tagged && (n.Tag == "!!int" || n.Tag == "!!float" || n.Tag == "!!bool"):
		v := plainValue(n.Value)
		if (v.Kind == Number) == (n.Tag == "!!bool") || v.Kind == Text {
			return Value{}, problem.Errorf("Leave the tag out.", "%s is tagged %s but contains %q", what, n.Tag,
				n.Value)
		}
		return v, nil
	case tagged:
		return Value{}, unknownTag(what, n)
	case !yamlfile.IsPlain(n):
		return Value{Text: n.Value}, nil
	}
	switch strings.ToLower(n.Value) {
	case "", "~", "null":
		return Value{}, problem.Errorf(`Give a value, write "" for empty text, or false to leave the option out.`,
			"%s has no value (null)", what)
	case ".nan", ".inf", "-.inf", "+.inf":
		return Value{}, problem.Errorf("Put it in quotes if the program should see this text.",
			"%s has the value %s, which is not a finite number", what, n.Value)
	}
	return plainValue(n.Value), nil
}

// plainValue distinguishes numbers, flags and text by their source text. Flags are those of YAML
// 1.2: yes and on are text.
func plainValue(s string) Value {
	switch s {
	case "true", "True", "TRUE":
		return Value{Text: "true", Kind: True}
	case "false", "False", "FALSE":
		return Value{Text: "false", Kind: False}
	}
	if isNumber(s) {
		return Value{Text: s, Kind: Number}
	}
	return Value{Text: s}
}

func unknownTag(what string, n *yaml.Node) *problem.Error {
	return problem.Errorf("Leave it out; !!python/tuple on an interval is the only special tag.",
		"%s has the unknown tag %s", what, n.ShortTag())
}

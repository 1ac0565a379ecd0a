package grid

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// ScalarValue gives the value of a YAML scalar (or of an alias to one) with its source text. The problem is nil when it has
// one; what names the scalar in the problem's message.
func ScalarValue(file, what string, n *yaml.Node) (Value, *Problem) {
	v, f := scalar(what, resolve(n))
	if f != nil {
		p := ProblemAt(file, n, f.msg, f.hint)
		return Value{}, &p
	}
	return v, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func scalar(what string, n *yaml.Node) (Value, *flaw) {
	switch n.Kind {
	case yaml.SequenceNode:
		return Value{}, flawf("Write the arguments in one flat list.", "%s has a list in a list", what)
	case yaml.MappingNode:
		return Value{}, flawf("Give every parameter its own key at the left margin.", "%s has a map among its values", what)
	}
	v, f := scalarText(what, n)
	if f == nil {
		f = checkValue(what, v)
	}
	return v, f
}

func scalarText(what string, n *yaml.Node) (Value, *flaw) {
	tagged := n.Style&yaml.TaggedStyle != 0
	switch {
	case tagged && n.Tag == "!!str":
		return Value{Text: n.Value}, nil
	case tagged && (n.Tag == "!!int" || n.Tag == "!!float" || n.Tag == "!!bool"):
		v := plainValue(n.Value)
		if (v.Kind == Number) == (n.Tag == "!!bool") || v.Kind == Text {
			return Value{}, flawf("Leave the tag out.", "%s is tagged %s but holds %q", what, n.Tag, n.Value)
		}
		return v, nil
	case tagged:
		return Value{}, unknownTag(what, n)
	case !isPlain(n):
		return Value{Text: n.Value}, nil
	}
	switch strings.ToLower(n.Value) {
	case "", "~", "null":
		return Value{}, flawf(`Give a value, write "" for empty text, or false to leave the option out.`, "%s has no value (null)", what)
	case ".nan", ".inf", "-.inf", "+.inf":
		return Value{}, flawf("Put it in quotes if the program should see this text.", "%s has the value %s, which is not a finite number", what, n.Value)
	}
	return plainValue(n.Value), nil
}

// plainValue tells numbers and flags (as in YAML 1.2: yes and on are text) from text by their source text.
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

func unknownTag(what string, n *yaml.Node) *flaw {
	return flawf("Leave it out; !!python/tuple on an interval is the only special tag.", "%s has the unknown tag %s", what, n.ShortTag())
}

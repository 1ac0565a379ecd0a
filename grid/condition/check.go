package condition

import (
	"fmt"
	"regexp"
	"slices"
)

// check sets the kinds of the node and its children.
func (n *node) check(variables []Variable) error {
	for _, a := range n.args {
		if err := a.check(variables); err != nil {
			return err
		}
	}
	switch n.op {
	case opLiteral:
		n.kind = n.literal.kind
	case opName:
		for i, v := range variables {
			if v.Name == n.text {
				n.index, n.kind = i, v.Kind
				return nil
			}
		}
		return n.errorf("unknown name %s", n.text)
	case opList:
		n.kind, n.elem = List, commonKind(n.args)
	case opCall:
		return n.checkCall()
	case opChoose:
		if !fits(n.args[0], Bool) {
			return n.args[0].errorf("non-bool expression (type %s) used as condition", n.args[0].kind)
		}
		yes, no := n.args[1], n.args[2]
		n.kind, n.elem = commonKind(n.args[1:]), commonKind([]*node{{kind: yes.elem}, {kind: no.elem}})
	default:
		if len(n.args) == 1 {
			return n.checkUnary()
		}
		return n.checkBinary()
	}
	return nil
}

// commonKind returns the kind of all nodes, or Any if they differ. Nil is ignored if there are
// other kinds.
func commonKind(nodes []*node) Kind {
	kind := Nil
	for _, a := range nodes {
		switch {
		case kind == Nil:
			kind = a.kind
		case a.kind != Nil && a.kind != kind:
			return Any
		}
	}
	return kind
}

func (n *node) checkUnary() error {
	a := n.args[0]
	switch {
	case n.op == "not" && fits(a, Bool):
		n.kind = Bool
	case n.op != "not" && fits(a, Int, Float):
		n.kind = a.kind
	default:
		return n.errorf("invalid operation: %s (mismatched type %s)", n.symbol(), a.kind)
	}
	return nil
}

func (n *node) checkBinary() error {
	l, r := n.args[0], n.args[1]
	numbers := fits(l, Int, Float) && fits(r, Int, Float)
	texts := fits(l, Text) && fits(r, Text)
	ok := false
	n.kind = Bool
	switch n.op {
	case "==", "!=":
		ok = comparable(l.kind, r.kind)
	case "or", "||", "and", "&&":
		ok = fits(l, Bool) && fits(r, Bool)
	case "<", ">", ">=", "<=":
		ok = numbers || texts
	case "in":
		ok = r.kind == List || r.kind == Any
		if r.kind == List && !comparable(l.kind, r.elem) {
			return n.errorf("cannot use %s as type %s in array", l.kind, r.elem)
		}
	case "matches":
		ok = texts
		if r.op == opLiteral && r.kind == Text {
			var err error
			if n.pattern, err = regexp.Compile(r.literal.text); err != nil {
				return n.errorf("%s", err)
			}
		}
	case "contains", "startsWith", "endsWith":
		ok = texts
	case "..":
		ok = fits(l, Int) && fits(r, Int)
		n.kind, n.elem = List, Int
	case "/", "**", "^":
		ok = numbers
		n.kind = Float
	case "%":
		ok = fits(l, Int) && fits(r, Int)
		n.kind = Int
	case "+", "-", "*":
		ok = numbers || n.op == "+" && texts
		n.kind = sum(l.kind, r.kind)
	case "??":
		ok = true
		n.kind = commonKind(n.args)
	}
	if !ok {
		return n.errorf("invalid operation: %s (mismatched types %s and %s)", n.op, l.kind, r.kind)
	}
	return nil
}

// sum returns the kind of a sum.
func sum(a, b Kind) Kind {
	switch {
	case a == Any || b == Any:
		return Any
	case a == b:
		return a
	}
	return Float
}

func comparable(a, b Kind) bool {
	return a == b || a == Any || b == Any || a == Nil || b == Nil || a.number() && b.number()
}

// fits reports whether a node can have one of the kinds.
func fits(n *node, kinds ...Kind) bool {
	return n.kind == Any || slices.Contains(kinds, n.kind)
}

// symbol returns the operator as written.
func (n *node) symbol() string {
	if n.op == opNegate {
		return "-"
	}
	return n.op
}

func (n *node) errorf(format string, args ...any) error {
	return &Error{Message: fmt.Sprintf(format, args...), Column: n.column}
}

// function is the signature of a function.
type function struct {
	least, most int    // number of arguments
	parameters  []Kind // kinds that each argument accepts
	result      Kind   // kind of the result; Any means that of the first argument, if that is a number
}

func functions(name string) (function, bool) {
	numbers := []Kind{Int, Float}
	f, ok := map[string]function{
		"abs":    {1, 1, numbers, Any},
		"ceil":   {1, 1, numbers, Float},
		"floor":  {1, 1, numbers, Float},
		"round":  {1, 1, numbers, Float},
		"int":    {1, 1, []Kind{Int, Float, Text}, Int},
		"float":  {1, 1, []Kind{Int, Float, Text}, Float},
		"string": {1, 1, []Kind{Nil, Bool, Int, Float, Text, List}, Text},
		"len":    {1, 1, []Kind{Text, List}, Int},
		"lower":  {1, 1, []Kind{Text}, Text},
		"upper":  {1, 1, []Kind{Text}, Text},
		"trim":   {1, 2, []Kind{Text}, Text},
		"min":    {1, 100, []Kind{Int, Float, List}, Any},
		"max":    {1, 100, []Kind{Int, Float, List}, Any},
	}[name]
	return f, ok
}

func (n *node) checkCall() error {
	f, ok := functions(n.text)
	switch got := len(n.args); {
	case !ok:
		return n.errorf("unknown name %s", n.text)
	case got < f.least || got > f.most:
		return n.errorf("invalid number of arguments for %s: %d", n.text, got)
	}
	n.kind = f.result
	if n.kind == Any {
		n.kind = n.args[0].kind
	}
	for _, a := range n.args {
		if !fits(a, f.parameters...) {
			return a.errorf("invalid argument for %s (type %s)", n.text, a.kind)
		}
		if f.result == Any && !a.kind.number() { // the kind of a list's elements, too, is known only at evaluation
			n.kind = Any
			return nil
		}
	}
	return nil
}

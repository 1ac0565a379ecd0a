package condition

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// longestRange bounds the memory of a range.
const longestRange = 10_000

// value evaluates the node.
func (n *node) value(values []Value) (Value, error) {
	switch n.op {
	case opLiteral:
		return n.literal, nil
	case opName:
		return values[n.index], nil
	case opList, opCall:
		all := make([]Value, len(n.args))
		for i, a := range n.args {
			var err error
			if all[i], err = a.value(values); err != nil {
				return Value{}, err
			}
		}
		if n.op == opList {
			return Value{kind: List, list: all}, nil
		}
		return call(n.text, all)
	}
	left, err := n.args[0].value(values)
	if err != nil {
		return Value{}, err
	}
	switch n.op {
	case "or", "||", "and", "&&", opChoose, "not":
		return n.logical(left, values)
	case "??":
		if left.kind != Nil {
			return left, nil
		}
		return n.args[1].value(values)
	}
	if len(n.args) == 1 {
		return signed(n.symbol(), left)
	}
	right, err := n.args[1].value(values)
	if err != nil {
		return Value{}, err
	}
	return n.binary(left, right)
}

// logical evaluates the operators that need not evaluate all of their operands.
func (n *node) logical(left Value, values []Value) (Value, error) {
	if left.kind != Bool {
		return Value{}, mismatch(n.op, left)
	}
	next := n.args[len(n.args)-1]
	switch n.op {
	case "not":
		return OfBool(!left.truth()), nil
	case opChoose:
		if left.truth() {
			next = n.args[1]
		}
		return next.value(values)
	case "or", "||":
		if left.truth() {
			return left, nil
		}
	default:
		if !left.truth() {
			return left, nil
		}
	}
	right, err := next.value(values)
	if err == nil && right.kind != Bool {
		err = mismatch(n.op, right)
	}
	return right, err
}

func signed(sign string, v Value) (Value, error) {
	switch {
	case sign == "+":
		return v, nil
	case !v.kind.number():
		return Value{}, mismatch(sign, v)
	case v.kind == Int:
		return OfInt(-v.n), nil
	}
	return OfFloat(-v.f), nil
}

func (n *node) binary(a, b Value) (Value, error) {
	switch n.op {
	case "==":
		return OfBool(equal(a, b)), nil
	case "!=":
		return OfBool(!equal(a, b)), nil
	case "<":
		return compared(less(a, b))
	case ">":
		return compared(less(b, a))
	case ">=":
		yes, err := less(b, a)
		return OfBool(yes || equal(a, b)), err // false for NaN
	case "<=":
		yes, err := less(a, b)
		return OfBool(yes || equal(a, b)), err
	case "in":
		return within(a, b)
	case "..":
		return between(a, b)
	case "matches", "contains", "startsWith", "endsWith":
		return n.texts(a, b)
	}
	return arithmetic(n.op, a, b)
}

func compared(yes bool, err error) (Value, error) { return OfBool(yes), err }

func within(a, b Value) (Value, error) {
	switch b.kind {
	case List:
	case Nil:
		return OfBool(false), nil
	default:
		return Value{}, mismatch("in", a, b)
	}
	return OfBool(slices.ContainsFunc(b.list, func(v Value) bool { return equal(v, a) })), nil
}

func between(a, b Value) (Value, error) {
	if !a.kind.number() || !b.kind.number() {
		return Value{}, mismatch("..", a, b)
	}
	first, last := int(a.float()), int(b.float())
	n := 0
	if last >= first {
		n = last - first + 1
	}
	if n < 0 || n > longestRange {
		return Value{}, fmt.Errorf("the range %d..%d is longer than %d", first, last, longestRange)
	}
	list := make([]Value, n)
	for i := range list {
		list[i] = OfInt(first + i)
	}
	return Value{kind: List, list: list}, nil
}

func (n *node) texts(a, b Value) (Value, error) {
	if a.kind != Text || b.kind != Text {
		return Value{}, mismatch(n.op, a, b)
	}
	switch n.op {
	case "contains":
		return OfBool(strings.Contains(a.text, b.text)), nil
	case "startsWith":
		return OfBool(strings.HasPrefix(a.text, b.text)), nil
	case "endsWith":
		return OfBool(strings.HasSuffix(a.text, b.text)), nil
	}
	pattern := n.pattern
	if pattern == nil {
		var err error
		if pattern, err = regexp.Compile(b.text); err != nil {
			return Value{}, err
		}
	}
	return OfBool(pattern.MatchString(a.text)), nil
}

// call computes a function. The number of arguments is already checked.
func call(name string, args []Value) (Value, error) {
	v := args[0]
	switch name {
	case "min", "max":
		return extreme(name, args)
	case "string":
		return OfText(v.String()), nil
	case "int", "float":
		return converted(name, v)
	}
	switch {
	case v.kind.number():
		return rounded(name, v)
	case v.kind == List && name == "len":
		return OfInt(len(v.list)), nil
	case v.kind != Text || len(args) > 1 && args[1].kind != Text:
		return Value{}, fmt.Errorf("invalid argument for %s (type %s)", name, args[len(args)-1].kind)
	}
	switch name {
	case "len":
		return OfInt(utf8.RuneCountInString(v.text)), nil
	case "lower":
		return OfText(strings.ToLower(v.text)), nil
	case "upper":
		return OfText(strings.ToUpper(v.text)), nil
	case "trim":
		if len(args) > 1 {
			return OfText(strings.Trim(v.text, args[1].text)), nil
		}
		return OfText(strings.TrimSpace(v.text)), nil
	}
	return Value{}, fmt.Errorf("invalid argument for %s (type %s)", name, v.kind)
}

func rounded(name string, v Value) (Value, error) {
	switch name {
	case "abs":
		if v.kind == Int {
			return OfInt(max(v.n, -v.n)), nil
		}
		return OfFloat(math.Abs(v.f)), nil
	case "ceil":
		return OfFloat(math.Ceil(v.float())), nil
	case "floor":
		return OfFloat(math.Floor(v.float())), nil
	case "round":
		return OfFloat(math.Round(v.float())), nil
	}
	return Value{}, fmt.Errorf("invalid argument for %s (type %s)", name, v.kind)
}

// converted converts a number, or a text that represents one, to a number.
func converted(name string, v Value) (Value, error) {
	var err error
	switch {
	case v.kind == Text && name == "int":
		var n int
		if n, err = strconv.Atoi(v.text); err == nil {
			return OfInt(n), nil
		}
	case v.kind == Text:
		var f float64
		if f, err = strconv.ParseFloat(v.text, 64); err == nil {
			return OfFloat(f), nil
		}
	case v.kind == Int && name == "int":
		return v, nil
	case v.kind == Float && name == "int":
		return OfInt(int(v.f)), nil
	case v.kind.number():
		return OfFloat(v.float()), nil
	}
	return Value{}, fmt.Errorf("invalid operation: %s(%s)", name, v)
}

// extreme returns the minimum or the maximum of numbers and of the numbers in lists.
func extreme(name string, args []Value) (Value, error) {
	var best Value
	for _, v := range args {
		if v.kind == List {
			var err error
			if v, err = extreme(name, v.list); err != nil {
				return Value{}, err
			}
			if v.kind == Nil { // from an empty list
				continue
			}
		}
		if !v.kind.number() {
			return Value{}, fmt.Errorf("invalid argument for %s (type %s)", name, v.kind)
		}
		if best.kind == Any || name == "max" && best.float() < v.float() || name == "min" && best.float() > v.float() {
			best = v
		}
	}
	if best.kind == Any {
		best.kind = Nil
	}
	return best, nil
}

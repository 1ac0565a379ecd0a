package condition

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Kind is the kind of a value, or of all values that an expression can have.
type Kind uint8

// The kinds. With Any, the kind is known only when the expression is evaluated.
const (
	Any Kind = iota
	Nil
	Bool
	Int
	Float
	Text
	List
)

// String returns the name of the kind in messages.
func (k Kind) String() string {
	return [...]string{"unknown", "nil", "bool", "int", "float", "string", "array"}[k]
}

func (k Kind) number() bool { return k == Int || k == Float }

// Value is the value of an axis or a subexpression at one point.
type Value struct {
	kind Kind
	n    int // the number of an Int; 1 for true
	f    float64
	text string
	list []Value
}

// OfInt returns a whole number.
func OfInt(n int) Value { return Value{kind: Int, n: n} }

// OfFloat returns a floating-point number.
func OfFloat(f float64) Value { return Value{kind: Float, f: f} }

// OfText returns a text.
func OfText(s string) Value { return Value{kind: Text, text: s} }

// OfBool returns a boolean.
func OfBool(b bool) Value {
	if b {
		return Value{kind: Bool, n: 1}
	}
	return Value{kind: Bool}
}

// Kind returns the value's kind, which is never Any.
func (v Value) Kind() Kind { return v.kind }

func (v Value) truth() bool { return v.n != 0 }

// float returns a number of either kind as a float64.
func (v Value) float() float64 {
	if v.kind == Int {
		return float64(v.n)
	}
	return v.f
}

// String formats the value like the function string.
func (v Value) String() string {
	switch v.kind {
	case Bool:
		return strconv.FormatBool(v.truth())
	case Int:
		return strconv.Itoa(v.n)
	case Float:
		return fmt.Sprint(v.f)
	case Text:
		return v.text
	case List:
		return fmt.Sprint(v.list)
	}
	return "<nil>"
}

func equal(a, b Value) bool {
	switch {
	case a.kind == Int && b.kind == Int:
		return a.n == b.n
	case a.kind.number() && b.kind.number():
		return a.float() == b.float()
	case a.kind != b.kind:
		return false
	case a.kind == List:
		return slices.EqualFunc(a.list, b.list, equal)
	}
	return a.n == b.n && a.text == b.text
}

// less compares two numbers or two texts.
func less(a, b Value) (bool, error) {
	switch {
	case a.kind == Int && b.kind == Int:
		return a.n < b.n, nil
	case a.kind.number() && b.kind.number():
		return a.float() < b.float(), nil
	case a.kind == Text && b.kind == Text:
		return a.text < b.text, nil
	}
	return false, mismatch("<", a, b)
}

func mismatch(op string, values ...Value) error {
	if len(values) == 1 {
		return fmt.Errorf("invalid operation: %s %s", op, values[0].kind)
	}
	return fmt.Errorf("invalid operation: %s %s %s", values[0].kind, op, values[1].kind)
}

// arithmetic computes + - * / % ** of two numbers, and + of two texts.
func arithmetic(op string, a, b Value) (Value, error) {
	whole := a.kind == Int && b.kind == Int
	switch {
	case op == "+" && a.kind == Text && b.kind == Text:
		return OfText(a.text + b.text), nil
	case !a.kind.number() || !b.kind.number() || op == "%" && !whole:
		return Value{}, mismatch(op, a, b)
	case op == "%" && b.n == 0:
		return Value{}, fmt.Errorf("%d %% 0 is a division by zero", a.n)
	case op == "%":
		return OfInt(a.n % b.n), nil
	case op == "/":
		return OfFloat(a.float() / b.float()), nil
	case op == "**" || op == "^":
		return OfFloat(math.Pow(a.float(), b.float())), nil
	case whole && op == "+":
		return OfInt(a.n + b.n), nil
	case whole && op == "-":
		return OfInt(a.n - b.n), nil
	case whole:
		return OfInt(a.n * b.n), nil
	case op == "+":
		return OfFloat(a.float() + b.float()), nil
	case op == "-":
		return OfFloat(a.float() - b.float()), nil
	}
	return OfFloat(a.float() * b.float()), nil
}

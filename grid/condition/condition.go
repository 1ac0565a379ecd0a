// Package condition evaluates conditions on the values of a point, like `lr > 0.1 and opt in
// ["sgd", "adam"]`.
//
// The language is that of github.com/expr-lang/expr without loops, variable declarations, members
// and maps: it has the same tokens, precedence, types and results, which the tests compare. The
// library itself looks up methods by name, so a program that links it keeps every method of every
// type: a tenth of the size of this one.
package condition

import (
	"fmt"
	"slices"
)

// Variable is a name that a condition may use, and the kind of all its values.
type Variable struct {
	Name string
	Kind Kind
}

// Error is the reason why a condition is invalid.
type Error struct {
	Message string
	Column  int // in characters, starting at 1
}

func (e *Error) Error() string { return fmt.Sprintf("%s at column %d", e.Message, e.Column) }

// Condition is a compiled expression with a boolean result. It is safe for concurrent use.
type Condition struct {
	root *node
}

// Parse parses an expression with at most the given number of operators, names and literals. The
// error is an *Error.
func Parse(source string, nodes int) (*Condition, error) {
	root, err := parse(source, nodes)
	if err != nil {
		return nil, err
	}
	return &Condition{root: root}, nil
}

// Names returns the variables that the expression mentions, in alphabetical order.
func (c *Condition) Names() []string {
	var names []string
	c.root.walk(func(n *node) {
		if n.op == opName {
			names = append(names, n.text)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Bind checks the expression against the variables, whose values are passed to Holds in the same
// order. The error is an *Error.
func (c *Condition) Bind(variables []Variable) error {
	if err := c.root.check(variables); err != nil {
		return err
	}
	if k := c.root.kind; k != Bool && k != Any {
		return &Error{Message: fmt.Sprintf("expected bool, but got %s", k), Column: 1}
	}
	return nil
}

// Holds evaluates the expression; a nil result means false. It returns an error if the kind of a
// value does not fit, which is possible with kind Any, or if a computation has no result.
func (c *Condition) Holds(values []Value) (bool, error) {
	v, err := c.root.value(values)
	if err == nil && v.kind != Bool && v.kind != Nil {
		err = fmt.Errorf("expected bool, but got %s", v.kind)
	}
	return v.truth(), err
}

package space

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"mlfnode/grid/problem"
)

// Axis is one parameter with the values that it takes: exactly one field beside Key is set. The formulas are never written
// out, so an interval of 10^9 values is as small as one of two. With Zip it is several parameters, and Key is empty.
type Axis struct {
	Key    string  `json:"key"`
	Values []Value `json:"values,omitempty"`

	// Interval is start, end and step: start, start+step, … up to but without end, in exact decimal arithmetic. The step
	// may be left out, which is 1, and may be negative.
	Interval []json.Number `json:"interval,omitempty"`

	// Linspace is a, b and n: n values at even distances from a to b, both included, as numpy's linspace. Each is the
	// 64-bit float that is nearest to the exact value, in its shortest decimal form.
	Linspace []json.Number `json:"linspace,omitempty"`

	// Logspace is a, b and n: n values from 10^a to 10^b, both included, whose exponents lie at even distances, as numpy's
	// logspace. Each is the 64-bit float that is nearest to the exact value, in its shortest decimal form.
	Logspace []json.Number `json:"logspace,omitempty"`

	// Zip is axes that go together: the first value of each is one point, the second of each the next. There are as many
	// values of each, at most MaxRows, and one axis may have a value several times.
	Zip []Axis `json:"zip,omitempty"`
}

// Check reports what makes the axis unusable: a key that can't be an option, no values, or a value twice.
func (a Axis) Check() error {
	if f := a.check(); f != nil {
		return f
	}
	return nil
}

func (a Axis) check() *problem.Error {
	_, _, f := newFactor(a, 0)
	return f
}

// finder returns the position of a value.
type finder interface {
	find(v Value) (int64, bool)
}

// series is the values of an axis as a function of their position.
type series interface {
	finder
	count() int64
	at(i int64) Value
}

func newSeries(a Axis) (series, *problem.Error) {
	forms := 0
	for _, n := range []int{len(a.Values), len(a.Interval), len(a.Linspace), len(a.Logspace)} {
		forms += min(n, 1)
	}
	switch {
	case forms == 0:
		return nil, problem.Errorf("Give it one value or more, or leave the key out.", "%s has no values", a.Key)
	case forms > 1:
		return nil, problem.Errorf("Give either values or one formula.", "%s has more than one kind of values", a.Key)
	case a.Interval != nil:
		return newInterval(a.Key, a.Interval)
	case a.Linspace != nil:
		return newSpaced(a.Key, "linspace", a.Linspace)
	case a.Logspace != nil:
		return newSpaced(a.Key, "logspace", a.Logspace)
	}
	return newList(a.Key, a.Values)
}

// maxAxes bounds the parameters of a space.
const maxAxes = 1000

// maxKey bounds the name of a parameter, in bytes.
const maxKey = 200

// checkKey says why a key can't be an option of a program.
func checkKey(key string) *problem.Error {
	const hint = "A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."
	switch {
	case key == "":
		return problem.Errorf(hint, "a key is empty")
	case !utf8.ValidString(key):
		return problem.Errorf(hint, "the key %q is not valid UTF-8", key)
	case len(key) > maxKey:
		return problem.Errorf(hint, "the key %.60q… has %d bytes; at most %d are allowed", key, len(key), maxKey)
	case key[0] == '-':
		return problem.Errorf("Leave the dashes out: they are added when the option is made.", "the key %q starts with '-'", key)
	case strings.Contains(key, "="):
		return problem.Errorf(hint, "the key %q contains '='", key)
	case strings.ContainsFunc(key, unicode.IsSpace):
		return problem.Errorf(hint, "the key %q contains white space", key)
	case strings.ContainsFunc(key, unicode.IsControl):
		return problem.Errorf(hint, "the key %q contains a control character", key)
	}
	return nil
}

// checkValue says why a value can't reach a program.
func checkValue(key string, v Value) *problem.Error {
	const hint = "Put such data in a file of the project and give the file's name."
	switch {
	case !utf8.ValidString(v.Text):
		return problem.Errorf(hint, "%s has a value that is not valid UTF-8", key)
	case strings.ContainsRune(v.Text, 0):
		return problem.Errorf(hint, "%s has a value with a zero byte, which a program's argument can't contain", key)
	case v.Kind == Number && !isNumber(v.Text):
		return problem.Errorf("Give it as text.", "%s has the value %q, which is not a number", key, v.Text)
	case v.Kind == List:
		var items []Value
		if json.Unmarshal([]byte(v.Text), &items) != nil || len(items) == 0 || listOf(items) != v {
			return problem.Errorf("Give it one argument or more, or write false to leave the option out.", "%s has the value %s, which is not a list of arguments", key, abbreviate(v))
		}
		for _, item := range items {
			if f := checkValue(key, item); f != nil {
				return f
			}
		}
	}
	return nil
}

// list is an axis with explicit values.
type list struct {
	values []Value
	index  map[Value]int64
	lists  bool // a value is a list of arguments
}

func newList(key string, values []Value) (series, *problem.Error) {
	l := &list{values: make([]Value, len(values)), index: make(map[Value]int64, len(values))}
	for i, v := range values {
		v = canonical(v)
		if f := checkValue(key, v); f != nil {
			return nil, f
		}
		if contains(l, v) {
			return nil, problem.Errorf("Keep it once: it would run the same point again.", "%s has the value %s twice", key, abbreviate(v))
		}
		l.values[i], l.index[v], l.lists = v, int64(i), l.lists || v.Kind == List
	}
	return l, nil
}

// contains also finds the text that would give the same argument as a number, and the other way round.
func contains(in finder, v Value) bool {
	if _, ok := in.find(v); ok {
		return true
	}
	switch v.Kind {
	case Text:
		v.Kind = Number
	case Number:
		v.Kind = Text
	}
	_, ok := in.find(v)
	return ok
}

func (l *list) count() int64     { return int64(len(l.values)) }
func (l *list) at(i int64) Value { return l.values[i] }
func (l *list) find(v Value) (int64, bool) {
	i, ok := l.index[canonical(v)]
	return i, ok
}

// canonical returns flags their one spelling.
func canonical(v Value) Value {
	switch v.Kind {
	case True:
		v.Text = "true"
	case False:
		v.Text = "false"
	}
	return v
}

// abbreviate returns a value for a message.
func abbreviate(v Value) string {
	b, err := v.MarshalJSON()
	if err != nil {
		return v.Text
	}
	if r := []rune(string(b)); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return string(b)
}

package space

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"mlfnode/grid/problem"
)

// Axis is one parameter and its values. Exactly one field besides Key is set. Formulas are never
// expanded, so an interval of 10^9 values is as small as one of two. With Zip, an Axis stands for
// several parameters, and Key is empty.
type Axis struct {
	Key    string  `json:"key"`
	Values []Value `json:"values,omitempty"`

	// Interval is start, end and step: start, start+step, … up to but not including end, in exact
	// decimal arithmetic. The step may be negative; it defaults to 1.
	Interval []json.Number `json:"interval,omitempty"`

	// Linspace is a, b and n: n evenly spaced values from a to b inclusive, as numpy's linspace.
	// Each is the 64-bit float nearest to the exact value, in its shortest decimal form.
	Linspace []json.Number `json:"linspace,omitempty"`

	// Logspace is a, b and n: n values from 10^a to 10^b inclusive with evenly spaced exponents, as
	// numpy's logspace. Each is the 64-bit float nearest to the exact value, in its shortest
	// decimal form.
	Logspace []json.Number `json:"logspace,omitempty"`

	// Zip lists axes that advance together: their first values form one point, their second values
	// the next. All have the same number of values, at most MaxRows, and an axis may repeat a
	// value.
	Zip []Axis `json:"zip,omitempty"`
}

// Formula computes the values of an axis from a few numbers.
type Formula struct {
	Name    string // of its field in JSON
	Numbers []json.Number

	newSeries func(key string, numbers []json.Number) (series, *problem.Error)
}

// FormulaInterval is the name of the formula that parameters.yml writes as {start: , end: ,
// step: }; the others are written by their names.
const FormulaInterval = "interval"

// Formulas returns the fields of the axis that hold a formula. Of a valid axis one of them has
// numbers, or none if it has Values or Zip.
func (a Axis) Formulas() (set []Formula) {
	all := [...]Formula{
		{FormulaInterval, a.Interval, newInterval},
		{"linspace", a.Linspace, newLinspace},
		{"logspace", a.Logspace, newLogspace},
	}
	for _, f := range all {
		if f.Numbers != nil {
			set = append(set, f)
		}
	}
	return set
}

// Check returns an error if the axis is unusable: its key cannot be an option, or it has no values
// or repeats one.
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

// series computes the values of an axis from their positions.
type series interface {
	count() int64
	at(i int64) Value
	find(v Value) (int64, bool)
}

func newSeries(a Axis) (series, *problem.Error) {
	formulas, kinds := a.Formulas(), min(len(a.Values), 1)
	for _, f := range formulas {
		kinds += min(len(f.Numbers), 1)
	}
	switch {
	case kinds == 0:
		return nil, problem.Errorf("Give it one value or more, or leave the key out.", "%s has no values", a.Key)
	case kinds > 1:
		return nil, problem.Errorf("Give either values or one formula.", "%s has more than one kind of values", a.Key)
	case len(formulas) > 0:
		return formulas[0].newSeries(a.Key, formulas[0].Numbers)
	}
	return newList(a.Key, a.Values)
}

// maxAxes bounds the number of parameters in a space.
const maxAxes = 1000

// maxKey bounds the name of a parameter, in bytes.
const maxKey = 200

// checkKey returns a problem if a key cannot be an option of a program.
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
		return problem.Errorf("Leave the dashes out: they are added when the option is made.",
			"the key %q starts with '-'", key)
	case strings.Contains(key, "="):
		return problem.Errorf(hint, "the key %q contains '='", key)
	case strings.ContainsFunc(key, unicode.IsSpace):
		return problem.Errorf(hint, "the key %q contains white space", key)
	case strings.ContainsFunc(key, unicode.IsControl):
		return problem.Errorf(hint, "the key %q contains a control character", key)
	}
	return nil
}

// checkValue returns a problem if a value cannot be passed to a program.
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
			return problem.Errorf("Give it one argument or more, or write false to leave the option out.",
				"%s has the value %s, which is not a list of arguments", key, abbreviate(v))
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
	lists  bool // values are lists of arguments
}

func newList(key string, values []Value) (series, *problem.Error) {
	l := &list{values: make([]Value, len(values)), index: make(map[Value]int64, len(values))}
	for i, v := range values {
		v = canonical(v)
		if f := checkValue(key, v); f != nil {
			return nil, f
		}
		if contains(l.find, v) {
			return nil, problem.Errorf("Keep it once: it would run the same point again.", "%s has the value %s twice",
				key, abbreviate(v))
		}
		l.values[i], l.index[v], l.lists = v, int64(i), l.lists || v.Kind == List
	}
	return l, nil
}

// contains reports whether an axis has the value, which find looks up. It treats a number and a
// text as equal if they result in the same argument.
func contains(find func(Value) (int64, bool), v Value) bool {
	if _, ok := find(v); ok {
		return true
	}
	switch v.Kind {
	case Text:
		v.Kind = Number
	case Number:
		v.Kind = Text
	}
	_, ok := find(v)
	return ok
}

func (l *list) count() int64     { return int64(len(l.values)) }
func (l *list) at(i int64) Value { return l.values[i] }
func (l *list) find(v Value) (int64, bool) {
	i, ok := l.index[canonical(v)]
	return i, ok
}

// canonical returns the value, with the one spelling of each flag.
func canonical(v Value) Value {
	switch v.Kind {
	case True:
		v.Text = "true"
	case False:
		v.Text = "false"
	}
	return v
}

// abbreviate returns a value shortened for a message.
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

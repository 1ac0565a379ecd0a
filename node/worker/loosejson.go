package worker

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
)

// looseObject reads one object off the front of b as programs print them: JSON with nan and inf in any spelling, numbers such as
// .5 and +1, and, with python, the text of a dict. Nested objects become names with dots, and lists are left out. A value that
// can't be read costs only itself. It gives the length of the object; false where b starts with none.
func looseObject(b []byte, python bool, put func(name string, v json.RawMessage)) (n int, ok bool) {
	r := looseReader{b: b, python: python, put: put}
	if !r.object("", 0) {
		return r.at, false
	}
	return r.at, true
}

// looseDepth bounds nesting.
const looseDepth = 64

type looseReader struct {
	b      []byte
	at     int
	python bool
	put    func(name string, v json.RawMessage)
}

func (r *looseReader) space() {
	for r.at < len(r.b) && strings.IndexByte(" \t\r\n", r.b[r.at]) >= 0 {
		r.at++
	}
}

// next takes the character if it comes next.
func (r *looseReader) next(c byte) bool {
	r.space()
	if r.at == len(r.b) || r.b[r.at] != c {
		return false
	}
	r.at++
	return true
}

func (r *looseReader) object(prefix string, depth int) bool {
	if depth > looseDepth || !r.next('{') {
		return false
	}
	for !r.next('}') { // as JSON has it, or behind a comma at the end
		r.space()
		key, ok := r.text()
		if !ok || !r.next(':') || !r.value(prefix+key, depth) {
			return false
		}
		if !r.next(',') {
			return r.next('}')
		}
	}
	return true
}

// value reads a member's value up to the comma or bracket behind it.
func (r *looseReader) value(name string, depth int) bool {
	r.space()
	if r.at == len(r.b) {
		return false
	}
	switch c := r.b[r.at]; {
	case c == '{':
		before := r.at
		if r.object(name+".", depth+1) && r.ends() {
			return true
		}
		r.at = before
		return r.skip()
	case c == '"' || (c == '\'' && r.python):
		s, ok := r.text()
		if !ok {
			return false // its end is not known
		}
		if r.ends() {
			r.put(name, textMetric(s))
			return true
		}
		return r.skip()
	}
	begin := r.at
	if !r.skip() {
		return false
	}
	word := strings.TrimSpace(string(r.b[begin:r.at]))
	if v := wordMetric(word, r.python); v != nil {
		r.put(name, v)
	}
	return true
}

// ends reports whether the value ends here.
func (r *looseReader) ends() bool {
	r.space()
	return r.at < len(r.b) && (r.b[r.at] == ',' || r.b[r.at] == '}')
}

// text reads a string. A string that continues past the end of a line is not accepted.
func (r *looseReader) text() (string, bool) {
	if r.at == len(r.b) {
		return "", false
	}
	quote := r.b[r.at]
	if quote != '"' && (quote != '\'' || !r.python) {
		return "", false
	}
	for i := r.at + 1; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '\n':
			return "", false
		case c == '\\':
			i++
		case c == quote:
			raw := string(r.b[r.at+1 : i])
			r.at = i + 1
			return unquoteText(raw, quote)
		}
	}
	return "", false
}

// unquoteText reads escapes; those of Python that JSON does not have stay as they are.
func unquoteText(raw string, quote byte) (string, bool) {
	raw = strings.ToValidUTF8(raw, "\uFFFD")
	if strings.IndexByte(raw, '\\') < 0 {
		return raw, true
	}
	if quote == '\'' {
		raw = strings.ReplaceAll(strings.ReplaceAll(raw, `\'`, `'`), `"`, `\"`)
	}
	var s string
	if json.Unmarshal([]byte(`"`+raw+`"`), &s) != nil {
		return raw, true
	}
	return s, true
}

// skip passes over a value of any kind, brackets and strings whole, up to the comma or brace behind it.
func (r *looseReader) skip() bool {
	open := 0
	for ; r.at < len(r.b); r.at++ {
		switch c := r.b[r.at]; {
		case open == 0 && (c == ',' || c == '}'):
			return true
		case open == 0 && c == '\n':
			// A value that has begun ends with its line.
			r.space()
			return r.at < len(r.b) && (r.b[r.at] == ',' || r.b[r.at] == '}')
		case c == '[' || c == '{' || c == '(':
			open++
		case c == ']' || c == '}' || c == ')':
			if open--; open < 0 {
				return false
			}
		case c == '"' || c == '\'' && r.python:
			before := r.at
			if !r.string(c) {
				r.at = before
			}
		}
	}
	return false
}

// string passes over a string and leaves the place at its last quote.
func (r *looseReader) string(quote byte) bool {
	for i := r.at + 1; i < len(r.b) && r.b[i] != '\n'; i++ {
		switch r.b[i] {
		case '\\':
			i++
		case quote:
			r.at = i
			return true
		}
	}
	return false
}

// decimalText is a number that a text holds. Leading zeros make it no number: they belong to names.
var decimalText = lazyregexp.New(`^([+-]?)(?:(0|[1-9]\d*)(\.\d*)?|(\.\d+))([eE][+-]?\d+)?$`)

// textMetric keeps a text, or the number that it is: many programs write their numbers as text.
func textMetric(s string) json.RawMessage {
	t := strings.TrimSpace(s)
	if f, err := strconv.ParseFloat(t, 64); err == nil && decimalText.Get().MatchString(t) {
		if json.Valid([]byte(t)) {
			return json.RawMessage(t)
		}
		out, _ := json.Marshal(f)
		return out
	}
	out, _ := json.Marshal(s) // strings always encode
	return out
}

// wrapped is how Python shows a number of NumPy, PyTorch and their like.
var wrapped = lazyregexp.New(`^(?:[A-Za-z_][\w.]*\.)?(?:b?float\d*|u?int\d*|bool_?|[Tt]ensor|[Aa]rray|Decimal)\(\s*'?([^\s,()'\[\]{}]+)'?\s*(?:,[^()]*)?\)$`)

// wordMetric gives what a word without quotes stands for, nil for nothing.
func wordMetric(w string, python bool) json.RawMessage {
	switch w {
	case "true", "false":
		return json.RawMessage(w)
	case "True", "False":
		if python {
			return json.RawMessage(strings.ToLower(w))
		}
		return nil
	}
	if python {
		if inner := wrapped.Get().FindStringSubmatch(w); inner != nil {
			return wordMetric(inner[1], false)
		}
	}
	if f, err := strconv.ParseFloat(w, 64); errors.Is(err, strconv.ErrRange) && math.IsInf(f, 0) && decimalText.Get().MatchString(w) {
		w = strconv.FormatFloat(f, 'g', -1, 64) // beyond what a number of a computer can be
	}
	if json.Valid([]byte(w)) && w != "" && (w[0] == '-' || w[0] >= '0' && w[0] <= '9') {
		return json.RawMessage(w)
	}
	if _, special := grid.Special(w); special {
		out, _ := json.Marshal(w)
		return out
	}
	if f, err := strconv.ParseFloat(w, 64); err == nil && !strings.ContainsAny(w, "xXpP_") {
		out, _ := json.Marshal(f)
		return out
	}
	return nil
}

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

// maxDepth bounds nesting.
const maxDepth = 64

// lenientParser reads an object as programs print it: JSON with nan and inf in any spelling,
// numbers such as .5 and +1, and, with python, the text of a dict. Nested objects become names with
// dots, and lists are left out. A value that can't be read is skipped.
type lenientParser struct {
	b      []byte
	pos    int
	python bool
	values grid.Metric
}

func (r *lenientParser) skipSpace() {
	for r.pos < len(r.b) && strings.IndexByte(" \t\r\n", r.b[r.pos]) >= 0 {
		r.pos++
	}
}

// accept consumes the character if it comes next.
func (r *lenientParser) accept(c byte) bool {
	r.skipSpace()
	if r.pos == len(r.b) || r.b[r.pos] != c {
		return false
	}
	r.pos++
	return true
}

func (r *lenientParser) parseObject(prefix string, depth int) bool {
	if depth > maxDepth || !r.accept('{') {
		return false
	}
	for !r.accept('}') { // as in JSON, or behind a trailing comma
		r.skipSpace()
		key, ok := r.parseString()
		if !ok || !r.accept(':') || !r.parseValue(prefix+key, depth) {
			return false
		}
		if !r.accept(',') {
			return r.accept('}')
		}
	}
	return true
}

// parseValue reads a member's value up to the comma or bracket behind it.
func (r *lenientParser) parseValue(name string, depth int) bool {
	r.skipSpace()
	if r.pos == len(r.b) {
		return false
	}
	switch c := r.b[r.pos]; {
	case c == '{':
		before := r.pos
		if r.parseObject(name+".", depth+1) && r.atValueEnd() {
			return true
		}
		r.pos = before
		return r.skipValue()
	case c == '"' || (c == '\'' && r.python):
		s, ok := r.parseString()
		if !ok {
			return false // its end is not known
		}
		if r.atValueEnd() {
			r.values[name] = parseText(s)
			return true
		}
		return r.skipValue()
	}
	begin := r.pos
	if !r.skipValue() {
		return false
	}
	word := strings.TrimSpace(string(r.b[begin:r.pos]))
	if v := parseBareWord(word, r.python); v != nil {
		r.values[name] = v
	}
	return true
}

// atValueEnd reports whether the value ends here.
func (r *lenientParser) atValueEnd() bool {
	r.skipSpace()
	return r.pos < len(r.b) && (r.b[r.pos] == ',' || r.b[r.pos] == '}')
}

// parseString reads a string. A string that continues past the end of a line is not accepted.
func (r *lenientParser) parseString() (string, bool) {
	if r.pos == len(r.b) {
		return "", false
	}
	quote := r.b[r.pos]
	if quote != '"' && (quote != '\'' || !r.python) {
		return "", false
	}
	for i := r.pos + 1; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '\n':
			return "", false
		case c == '\\':
			i++
		case c == quote:
			text := strings.ToValidUTF8(string(r.b[r.pos+1:i]), "\uFFFD")
			r.pos = i + 1
			if strings.IndexByte(text, '\\') < 0 {
				return text, true
			}
			if quote == '\'' {
				text = strings.ReplaceAll(strings.ReplaceAll(text, `\'`, `'`), `"`, `\"`)
			}
			var s string
			if json.Unmarshal([]byte(`"`+text+`"`), &s) == nil {
				return s, true
			}
			return text, true // escapes of Python that JSON does not have stay as they are
		}
	}
	return "", false
}

// skipValue skips a value of any kind, with whole brackets and strings, up to the comma or brace
// behind it.
func (r *lenientParser) skipValue() bool {
	open := 0
	for ; r.pos < len(r.b); r.pos++ {
		switch c := r.b[r.pos]; {
		case open == 0 && (c == ',' || c == '}'):
			return true
		case open == 0 && c == '\n':
			// A value ends with its line at the latest.
			r.skipSpace()
			return r.pos < len(r.b) && (r.b[r.pos] == ',' || r.b[r.pos] == '}')
		case c == '[' || c == '{' || c == '(':
			open++
		case c == ']' || c == '}' || c == ')':
			if open--; open < 0 {
				return false
			}
		case c == '"' || c == '\'' && r.python:
			before := r.pos
			if !r.skipString(c) {
				r.pos = before
			}
		}
	}
	return false
}

// skipString skips a string and stops at its closing quote.
func (r *lenientParser) skipString(quote byte) bool {
	for i := r.pos + 1; i < len(r.b) && r.b[i] != '\n'; i++ {
		switch r.b[i] {
		case '\\':
			i++
		case quote:
			r.pos = i
			return true
		}
	}
	return false
}

// decimalText matches a number inside a text. Text with leading zeros is not a number but part of a
// name.
var decimalText = lazyregexp.New(`^([+-]?)(?:(0|[1-9]\d*)(\.\d*)?|(\.\d+))([eE][+-]?\d+)?$`)

// parseText keeps a text, or returns the number that it is: many programs write their numbers as
// text.
func parseText(s string) json.RawMessage {
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

// numpyScalar matches how Python shows a number of NumPy, PyTorch and the like.
var numpyScalar = lazyregexp.New(
	`^(?:[A-Za-z_][\w.]*\.)?(?:b?float\d*|u?int\d*|bool_?|[Tt]ensor|[Aa]rray|Decimal)\(\s*'?([^\s,()'\[\]{}]+)'?\s*(?:,[^()]*)?\)$`,
)

// parseBareWord returns the value of a word without quotes, nil if it has none.
func parseBareWord(w string, python bool) json.RawMessage {
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
		if inner := numpyScalar.Get().FindStringSubmatch(w); inner != nil {
			return parseBareWord(inner[1], false)
		}
	}
	if f, err := strconv.ParseFloat(w, 64); errors.Is(err, strconv.ErrRange) && math.IsInf(f, 0) &&
		decimalText.Get().MatchString(w) {
		w = strconv.FormatFloat(f, 'g', -1, 64) // out of the range of a float64
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

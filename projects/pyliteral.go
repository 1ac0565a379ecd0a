package projects

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"mlfnode/grid/lazyregexp"
)

// literal parses one Python literal (string, number, list, tuple, dict, True, False, None) at the
// front of text. Lists and tuples become []any, dicts become [][2]any in their order, strings
// become string, and everything else becomes its source text as source.
func literal(text string) (v any, rest string, err error) {
	p := &pyReader{s: text}
	v, err = p.value(0)
	return v, p.s, err
}

// statement parses the literal at the front of text, which must be the whole right side of an
// assignment.
func statement(text string) (any, error) {
	v, rest, err := literal(text)
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(rest, "\n")
	if line = strings.TrimLeft(line, " \t;"); line != "" && line[0] != '#' {
		return nil, errors.New("expression")
	}
	return v, nil
}

// source is the text of a number or a name.
type source string

// maxNesting bounds the depth of nesting.
const maxNesting = 50

type pyReader struct{ s string }

// space skips white space, line continuations and comments.
func (p *pyReader) space() {
	for {
		p.s = strings.TrimLeft(p.s, " \t\r\n\\")
		if !strings.HasPrefix(p.s, "#") {
			return
		}
		_, p.s, _ = strings.Cut(p.s, "\n")
	}
}

func (p *pyReader) value(depth int) (any, error) {
	p.space()
	if p.s == "" || depth > maxNesting {
		return nil, errors.New("no literal")
	}
	switch p.s[0] {
	case '[':
		return p.list(']', depth)
	case '(':
		return p.list(')', depth)
	case '{':
		return p.dict(depth)
	}
	if p.atString() {
		return p.strings(depth)
	}
	return p.word()
}

func (p *pyReader) atString() bool {
	return p.s != "" && (p.s[0] == '"' || p.s[0] == '\'' || isPrefixed(p.s))
}

// isPrefixed reports whether a string with a prefix, such as u"" or r"", begins. Formatted strings
// are not literals.
func isPrefixed(s string) bool {
	return len(s) > 1 && strings.ContainsRune("uUbBrR", rune(s[0])) && (s[1] == '"' || s[1] == '\'')
}

// list reads up to end. A value in parentheses without a comma is not a tuple but the value itself.
func (p *pyReader) list(end byte, depth int) (any, error) {
	p.s = p.s[1:]
	all := []any{}
	commas := 0
	for {
		p.space()
		if p.s == "" {
			return nil, errors.New("list without end")
		}
		if p.s[0] == end {
			p.s = p.s[1:]
			if end == ')' && len(all) == 1 && commas == 0 {
				return all[0], nil
			}
			return all, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
		found, err := p.comma(end)
		if err != nil {
			return nil, err
		}
		if found {
			commas++
		}
	}
}

func (p *pyReader) comma(end byte) (found bool, err error) {
	p.space()
	switch {
	case strings.HasPrefix(p.s, ","):
		p.s = p.s[1:]
		return true, nil
	case p.s != "" && p.s[0] == end:
		return false, nil
	}
	return false, errors.New("expression")
}

func (p *pyReader) dict(depth int) (any, error) {
	p.s = p.s[1:]
	all := [][2]any{}
	for {
		p.space()
		if p.s == "" {
			return nil, errors.New("dict without end")
		}
		if p.s[0] == '}' {
			p.s = p.s[1:]
			return all, nil
		}
		key, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		p.space()
		if !strings.HasPrefix(p.s, ":") {
			return nil, errors.New("expression")
		}
		p.s = p.s[1:]
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, [2]any{key, v})
		if _, err := p.comma('}'); err != nil {
			return nil, err
		}
	}
}

// strings reads adjacent string literals, which Python joins, even across lines inside brackets.
func (p *pyReader) strings(depth int) (any, error) {
	var b strings.Builder
	for {
		part, err := p.oneString()
		if err != nil {
			return nil, err
		}
		b.WriteString(part)
		end := p.s
		if depth > 0 {
			p.space()
		} else {
			p.s = strings.TrimLeft(p.s, " \t")
		}
		if !p.atString() {
			p.s = end
			return b.String(), nil
		}
	}
}

// oneString reads one string literal.
func (p *pyReader) oneString() (string, error) {
	raw := false
	if isPrefixed(p.s) {
		raw = p.s[0] == 'r' || p.s[0] == 'R'
		p.s = p.s[1:]
	}
	quote := p.s[:1]
	if strings.HasPrefix(p.s, strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	rest := p.s[len(quote):]
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\':
			i++
		case strings.HasPrefix(rest[i:], quote):
			p.s = rest[i+len(quote):]
			if raw {
				return rest[:i], nil
			}
			return unescape(rest[:i])
		case rest[i] == '\n' && len(quote) == 1:
			return "", errors.New("string without end")
		}
	}
	return "", errors.New("string without end")
}

// The letters that stand for one character after a backslash, and these characters in the same
// order. See "String and Bytes literals" in the Python Language Reference.
const (
	escapes = `\'"abfnrtv`
	escaped = "\\'\"\a\b\f\n\r\t\v"
)

// numbered matches numeric escapes: octal ones, and those with a fixed number of hexadecimal
// digits.
var numbered = lazyregexp.New(`^\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))`)

// unescape interprets escapes as Python does: an unknown one keeps its backslash. It refuses
// characters by name, and bytes above 0x7f, which Python 2 and 3 read differently.
func unescape(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		at := strings.IndexByte(s, '\\')
		if at < 0 || at+1 == len(s) {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:at])
		s = s[at:]
		letter := strings.IndexByte(escapes, s[1])
		m := numbered.Get().FindStringSubmatch(s)
		switch {
		case s[1] == '\n': // the line goes on
			s = s[2:]
		case letter >= 0:
			b.WriteByte(escaped[letter])
			s = s[2:]
		case m != nil:
			r, ok := character(m)
			if !ok {
				return "", errors.New("escape of a byte")
			}
			b.WriteRune(r)
			s = s[len(m[0]):]
		case strings.IndexByte("xuUN", s[1]) >= 0:
			return "", errors.New("escape that is not understood")
		default:
			b.WriteByte('\\')
			s = s[1:]
		}
	}
	return b.String(), nil
}

// character returns the character that a numeric escape stands for.
func character(m []string) (rune, bool) {
	base, wide := 16, m[3]+m[4] != ""
	if m[1] != "" {
		base = 8
	}
	v, err := strconv.ParseUint(m[1]+m[2]+m[3]+m[4], base, 32)
	if err != nil || v > utf8.MaxRune || !wide && v >= utf8.RuneSelf {
		return 0, false
	}
	return rune(v), utf8.ValidRune(rune(v))
}

// word reads a number or one of the names that are literals.
func (p *pyReader) word() (any, error) {
	n := strings.IndexFunc(p.s, func(r rune) bool {
		return !(r == '_' || r == '.' || r == '+' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' ||
			r >= 'A' && r <= 'Z')
	})
	if n < 0 {
		n = len(p.s)
	}
	w := p.s[:n]
	_, err := strconv.ParseFloat(w, 64)
	number := err == nil && strings.ContainsAny(w, "0123456789")
	if !number && w != "True" && w != "False" && w != "None" {
		return nil, errors.New("expression")
	}
	p.s = p.s[n:]
	return source(w), nil
}

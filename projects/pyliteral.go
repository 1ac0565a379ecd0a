package projects

import (
	"fmt"
	"strconv"
	"strings"
)

// literal reads one Python literal (string, number, list, tuple, dict, True, False, None) off the front of text. Lists and
// tuples become []any, dicts [][2]any in their order, strings string, everything else its source text as source.
func literal(text string) (v any, rest string, err error) {
	p := &pyReader{s: text}
	v, err = p.value(0)
	return v, p.s, err
}

// source is the text of a number or a name.
type source string

// deepest bounds nesting.
const deepest = 50

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
	if p.s == "" || depth > deepest {
		return nil, fmt.Errorf("no literal")
	}
	switch p.s[0] {
	case '[':
		return p.list(']', depth)
	case '(':
		return p.list(')', depth)
	case '{':
		return p.dict(depth)
	}
	if strings.ContainsRune(`'"`, rune(p.s[0])) || isPrefixed(p.s) {
		return p.strings()
	}
	return p.word()
}

// isPrefixed reports whether a string with a prefix such as u"" or r"" begins. Formatted strings are no literals.
func isPrefixed(s string) bool {
	return len(s) > 1 && strings.ContainsRune("uUbBrR", rune(s[0])) && (s[1] == '"' || s[1] == '\'')
}

func (p *pyReader) list(end byte, depth int) (any, error) {
	p.s = p.s[1:]
	all := []any{}
	for {
		p.space()
		if p.s == "" {
			return nil, fmt.Errorf("list without end")
		}
		if p.s[0] == end {
			p.s = p.s[1:]
			return all, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
		if err := p.comma(end); err != nil {
			return nil, err
		}
	}
}

func (p *pyReader) comma(end byte) error {
	p.space()
	switch {
	case strings.HasPrefix(p.s, ","):
		p.s = p.s[1:]
		return nil
	case p.s != "" && p.s[0] == end:
		return nil
	}
	return fmt.Errorf("expression")
}

func (p *pyReader) dict(depth int) (any, error) {
	p.s = p.s[1:]
	all := [][2]any{}
	for {
		p.space()
		if p.s == "" {
			return nil, fmt.Errorf("dict without end")
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
			return nil, fmt.Errorf("expression")
		}
		p.s = p.s[1:]
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, [2]any{key, v})
		if err := p.comma('}'); err != nil {
			return nil, err
		}
	}
}

// strings reads adjacent string literals, which Python joins.
func (p *pyReader) strings() (any, error) {
	var b strings.Builder
	for p.s != "" && (p.s[0] == '"' || p.s[0] == '\'' || isPrefixed(p.s)) {
		part, err := p.one()
		if err != nil {
			return nil, err
		}
		b.WriteString(part)
		p.space()
	}
	return b.String(), nil
}

func (p *pyReader) one() (string, error) {
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
			return unescape(rest[:i]), nil
		}
	}
	return "", fmt.Errorf("string without end")
}

func unescape(s string) string {
	text, err := strconv.Unquote(`"` + strings.NewReplacer(`"`, `\"`, `\'`, `'`, "\n", `\n`).Replace(strings.ReplaceAll(s, `\"`, `"`)) + `"`)
	if err != nil {
		return s
	}
	return text
}

// word reads a number or one of the names that are literals.
func (p *pyReader) word() (any, error) {
	n := strings.IndexFunc(p.s, func(r rune) bool {
		return !(r == '_' || r == '.' || r == '+' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
	if n < 0 {
		n = len(p.s)
	}
	w := p.s[:n]
	if _, err := strconv.ParseFloat(w, 64); err != nil && w != "True" && w != "False" && w != "None" {
		return nil, fmt.Errorf("expression")
	}
	p.s = p.s[n:]
	return source(w), nil
}

package grid

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quote makes one word of a shell from s; words without special characters stay as they are.
func quote(s string) string {
	if isSafe(s) {
		return s
	}
	if key, value, found := strings.Cut(s, "="); found && strings.HasPrefix(key, "--") && isSafe(key) {
		return key + "=" + quote(value)
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func isSafe(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && !isDigit(c) && strings.IndexByte("_@%+:,./-=", c) < 0 {
			return false
		}
	}
	return s != ""
}

// quoteVisible is quote for people: what a terminal would not print becomes an escape in $'…', which bash and zsh read.
func quoteVisible(s string) string {
	if isVisible(s) {
		return quote(s)
	}
	var b strings.Builder
	b.WriteString("$'")
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x80 && r >= ' ' && r != 0x7f, r >= 0x80 && n > 1 && unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			for i := range n {
				fmt.Fprintf(&b, `\x%02x`, s[i])
			}
		}
		s = s[n:]
	}
	b.WriteString("'")
	return b.String()
}

func isVisible(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// shellState follows a shell script so far as to know in which quotes its next character stands.
type shellState struct {
	open []byte // what is open, innermost last: one of ' " ( and `
	word bool   // the character before belongs to a word, so that # starts no comment
}

func (s *shellState) inner() byte {
	if len(s.open) == 0 {
		return 0
	}
	return s.open[len(s.open)-1]
}

func (s *shellState) push(c byte) { s.open = append(s.open, c) }
func (s *shellState) pop()        { s.open = s.open[:len(s.open)-1] }

// next takes the script's next character, or the two that belong together, and says how many it took.
func (s *shellState) next(script string) int {
	c, in := script[0], s.inner()
	word := s.word
	s.word = strings.IndexByte(" \t\n;&|()", c) < 0
	switch {
	case in == '\'':
		if c == '\'' {
			s.pop()
		}
	case c == '\\':
		return min(2, len(script))
	case strings.HasPrefix(script, "$("):
		s.push('(')
		return 2
	case c == '"' || c == '`':
		s.toggle(c)
	case in == '"':
	case c == '\'' || c == '(':
		s.push(c)
	case c == ')' && in == '(':
		s.pop()
	case c == '#' && !word:
		return len(script) - len(strings.TrimLeftFunc(script, func(r rune) bool { return r != '\n' }))
	}
	return 1
}

func (s *shellState) toggle(c byte) {
	if s.inner() == c {
		s.pop()
	} else {
		s.push(c)
	}
}

// embed writes a value so that the shell reads it as plain text in the quotes that are open.
func (s *shellState) embed(value string) string {
	switch s.inner() {
	case '\'':
		return strings.ReplaceAll(value, "'", `'\''`)
	case '"':
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(value)
	}
	return quote(value)
}

package command

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quote returns s as one shell word; words without special characters stay as they are.
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
		letter, digit := c|0x20 >= 'a' && c|0x20 <= 'z', c >= '0' && c <= '9'
		if !letter && !digit && strings.IndexByte("_@%+:,./-=", c) < 0 {
			return false
		}
	}
	return s != ""
}

// quoteForDisplay is like quote, but for people: characters that a terminal does not print become
// escapes in $'…', which bash and zsh read.
func quoteForDisplay(s string) string {
	if isPrintable(s) {
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

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

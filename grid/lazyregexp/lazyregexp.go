// Package lazyregexp provides regular expressions that are compiled on first use: every command
// starts the whole program, and most need none of its patterns.
package lazyregexp

import (
	"regexp"
	"sync"
)

// Regexp is a regular expression that is compiled by the first call of Get. It is safe for
// concurrent use.
type Regexp struct{ compile func() *regexp.Regexp }

// New returns the expression for a pattern, which Get compiles. Like regexp.MustCompile, Get panics
// if the pattern is invalid.
func New(pattern string) Regexp {
	return Regexp{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })}
}

// Get returns the compiled expression.
func (r Regexp) Get() *regexp.Regexp { return r.compile() }

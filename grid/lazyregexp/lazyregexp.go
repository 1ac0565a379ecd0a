// Package lazyregexp has regular expressions that are compiled when they are first used: every command starts the whole program, and
// most need none of its patterns.
package lazyregexp

import (
	"regexp"
	"sync"
)

// Regexp is a regular expression that is compiled at the first call of Get. It is safe for concurrent use.
type Regexp struct{ compile func() *regexp.Regexp }

// New gives the expression for a pattern, which Get compiles: it panics if the pattern is wrong, as regexp.MustCompile does.
func New(pattern string) Regexp {
	return Regexp{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })}
}

// Get gives the compiled expression.
func (r Regexp) Get() *regexp.Regexp { return r.compile() }

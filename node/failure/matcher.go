package failure

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
)

const (
	// maxLiteral bounds the literals that are searched for: a longer one is hardly more selective.
	maxLiteral = 12
	// minLiteral is the shortest literal worth searching for; a pattern with only shorter ones is
	// tried on every line.
	minLiteral = 3
	// maxAlternatives bounds the literals of one pattern.
	maxAlternatives = 64
)

// splitAlternatives returns a pattern for each alternative of an expression, or one for all of it
// if there are too many.
func splitAlternatives(re *syntax.Regexp) []pattern {
	parts := alternatives(re)
	if len(parts) > maxAlternatives {
		parts = []*syntax.Regexp{re}
	}
	all := make([]pattern, len(parts))
	for i, part := range parts {
		all[i] = pattern{
			sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(part.String()) }),
			literals(part.Simplify()),
		}
	}
	return all
}

// alternatives splits an expression where it, or what follows its leading text, has alternatives:
// the parser factors out a common prefix.
func alternatives(re *syntax.Regexp) (all []*syntax.Regexp) {
	switch {
	case re.Op == syntax.OpAlternate:
		for _, sub := range re.Sub {
			all = append(all, alternatives(sub)...)
		}
	case re.Op == syntax.OpConcat && len(re.Sub) == 2 && re.Sub[0].Op == syntax.OpLiteral &&
		re.Sub[1].Op == syntax.OpAlternate:
		for _, rest := range alternatives(re.Sub[1]) {
			all = append(
				all, &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{re.Sub[0], rest}, Flags: re.Flags},
			)
		}
	default:
		all = []*syntax.Regexp{re}
	}
	return all
}

// literals returns texts, in lower case, of which every match of the expression contains at least
// one; nil if there are no useful ones.
func literals(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		text := strings.ToLower(string(re.Rune))
		if len(text) < minLiteral || !ascii(text) {
			return nil
		}
		return []string{text[:min(len(text), maxLiteral)]}
	case syntax.OpCapture, syntax.OpPlus:
		return literals(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return literals(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []string
		for _, sub := range re.Sub {
			if found := literals(sub); isMoreSelective(found, best) {
				best = found
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			found := literals(sub)
			if found == nil {
				return nil
			}
			all = append(all, found...)
		}
		if len(all) <= maxAlternatives {
			return all
		}
	}
	return nil
}

// isMoreSelective reports whether one set of literals occurs more rarely than another.
func isMoreSelective(a, b []string) bool { return shortestLiteral(a) > shortestLiteral(b) }

func shortestLiteral(set []string) int {
	n := 0
	for i, text := range set {
		if i == 0 || len(text) < n {
			n = len(text)
		}
	}
	return n
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// matcher finds in one pass over a line which patterns may match there. It is an Aho-Corasick
// automaton over the patterns' literals that ignores the case of letters.
type matcher struct {
	class  [256]uint8 // of a byte; 0 for those that occur in no literal
	width  int        // number of byte classes
	next   []int32    // state × byte class → state
	out    [][]int    // state → patterns with a literal that ends there
	always []int      // patterns without literals
}

// newMatcher builds the automaton; patterns are identified by their index.
func newMatcher(patterns [][]string) *matcher {
	m := &matcher{width: 1}
	for _, set := range patterns {
		for _, text := range set {
			for _, c := range []byte(text) {
				if m.class[c] == 0 {
					m.class[c] = uint8(m.width)
					m.width++
				}
			}
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		m.class[c-'a'+'A'] = m.class[c]
	}
	m.state()
	for i, set := range patterns {
		if set == nil {
			m.always = append(m.always, i)
		}
		for _, text := range set {
			at := 0
			for _, c := range []byte(text) {
				edge := at*m.width + int(m.class[c])
				if m.next[edge] == 0 {
					m.next[edge] = int32(m.state())
				}
				at = int(m.next[edge])
			}
			m.out[at] = append(m.out[at], i)
		}
	}
	m.link()
	return m
}

// state adds a state and returns its number.
func (m *matcher) state() int {
	m.next = append(m.next, make([]int32, m.width)...)
	m.out = append(m.out, nil)
	return len(m.out) - 1
}

// link turns the trie into an automaton that never goes back in the text.
func (m *matcher) link() {
	fallback := make([]int, len(m.out))
	queue := []int{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for c := range m.width {
			edge := at*m.width + c
			to, other := int(m.next[edge]), int(m.next[fallback[at]*m.width+c])
			switch {
			case to == 0:
				if at != 0 {
					m.next[edge] = int32(other)
				}
				continue
			case at != 0:
				fallback[to] = other
				m.out[to] = append(m.out[to], m.out[other]...)
			}
			queue = append(queue, to)
		}
	}
}

// scan calls found for each pattern with a literal in the line, for some more than once.
func (m *matcher) scan(line string, found func(pattern int)) {
	at := 0
	for i := range len(line) {
		at = int(m.next[at*m.width+int(m.class[line[i]])])
		for _, p := range m.out[at] {
			found(p)
		}
	}
}

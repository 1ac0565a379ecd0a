package projects

import (
	"bytes"
	"slices"
	"strings"
)

// pattern is one line of an ignore file, interpreted as git does (gitignore(5)). Its names are
// relative to the folder of the file.
type pattern struct {
	text     string // as written
	line     int
	negative bool   // with a leading '!': what matches is not ignored
	folders  bool   // with a trailing '/': matches folders only
	base     bool   // has no other '/': matches the last part of a name, at any depth
	literal  string // the text before the first special character
	tokens   []token
	never    bool // nothing matches: an unterminated bracket, or a backslash at the end
}

// token is a part of a pattern after its literal prefix.
type token struct {
	kind tokenKind
	set  *[256]bool // for the kind one
}

type tokenKind int

const (
	one     tokenKind = iota // one byte of the set
	star                     // "*": bytes other than '/', any number of them
	deep                     // "**": any number of any bytes
	folders                  // "**/": nothing, or any bytes and then a '/'
)

// parseIgnore reads the patterns of an ignore file.
func parseIgnore(data []byte) []pattern {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var all []pattern
	line := 0
	for text := range strings.SplitSeq(string(data), "\n") {
		line++
		if p, ok := parsePattern(strings.TrimSuffix(text, "\r")); ok {
			p.line = line
			all = append(all, p)
		}
	}
	return all
}

// parsePattern parses one line; it returns false for an empty line and for a comment.
func parsePattern(text string) (pattern, bool) {
	text, _, _ = strings.Cut(text, "\x00")
	if text == "" || text[0] == '#' {
		return pattern{}, false
	}
	text = trimSpaces(text)
	p := pattern{text: text}
	text, p.negative = strings.CutPrefix(text, "!")
	text, p.folders = strings.CutSuffix(text, "/")
	p.base = !strings.Contains(text, "/")
	text = strings.TrimPrefix(text, "/")
	if text == "" {
		return pattern{}, false
	}
	n := strings.IndexAny(text, `*?[\`)
	if n < 0 {
		n = len(text)
	}
	p.literal = text[:n]
	p.tokens, p.never = tokenize(text[n:])
	return p, true
}

// trimSpaces removes trailing spaces that are not protected by a backslash.
func trimSpaces(text string) string {
	end := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ' ':
			continue
		case '\\':
			i++
		}
		end = min(i+1, len(text))
	}
	return text[:end]
}

// tokenize parses the special part of a pattern. Two asterisks are special if they fill the space
// between two slashes and, as in git, also if they begin the special part.
func tokenize(text string) (tokens []token, never bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '*':
			begin := i
			for i+1 < len(text) && text[i+1] == '*' {
				i++
			}
			rest := text[i+1:]
			switch {
			case i == begin || begin > 0 && text[begin-1] != '/':
				tokens = append(tokens, token{kind: star})
			case strings.HasPrefix(rest, "/"):
				tokens = append(tokens, token{kind: folders})
				i++
			case rest == "" || strings.HasPrefix(rest, `\/`):
				tokens = append(tokens, token{kind: deep})
			default:
				tokens = append(tokens, token{kind: star})
			}
		case '?':
			set := [256]bool{}
			for b := range set {
				set[b] = b != '/'
			}
			tokens = append(tokens, token{set: &set})
		case '[':
			set, n := parseClass(text[i:])
			if set == nil {
				return nil, true
			}
			tokens = append(tokens, token{set: set})
			i += n - 1
		case '\\':
			if i++; i == len(text) {
				return nil, true
			}
			tokens = append(tokens, single(text[i]))
		default:
			tokens = append(tokens, single(text[i]))
		}
	}
	return tokens, false
}

func single(b byte) token {
	set := [256]bool{}
	set[b] = true
	return token{set: &set}
}

// parseClass parses a bracket expression at the beginning of text and returns its length. It
// returns nil for one that has no end or names an unknown class. The set never contains '/'.
func parseClass(text string) (*[256]bool, int) {
	set := &[256]bool{}
	i := 1
	negated := i < len(text) && (text[i] == '!' || text[i] == '^')
	if negated {
		i++
	}
	before := -1 // the byte with which a range may begin
	for first := true; ; first = false {
		if i >= len(text) {
			return nil, 0
		}
		b := text[i]
		switch {
		case b == ']' && !first:
			if negated {
				for c := range set {
					set[c] = !set[c]
				}
			}
			set['/'] = false
			return set, i + 1
		case b == '-' && before >= 0 && i+1 < len(text) && text[i+1] != ']':
			i++
			if text[i] == '\\' {
				i++
			}
			if i >= len(text) {
				return nil, 0
			}
			for c := before; c <= int(text[i]); c++ {
				set[c] = true
			}
			before = -1
		case strings.HasPrefix(text[i:], "[:"):
			end := strings.IndexByte(text[i+2:], ']')
			if end < 0 {
				return nil, 0
			}
			name, ok := strings.CutSuffix(text[i+2:i+2+end], ":")
			if !ok { // an ordinary bracket
				set['['] = true
				before = '['
				break
			}
			member := classes[name]
			if member == nil {
				return nil, 0
			}
			for c := range 128 {
				set[c] = set[c] || member(byte(c))
			}
			i += 2 + end
			before = -1
		default:
			if b == '\\' {
				if i++; i >= len(text) {
					return nil, 0
				}
				b = text[i]
			}
			set[b] = true
			before = int(b)
		}
		i++
	}
}

// classes are the POSIX character classes, for ASCII.
var classes = map[string]func(byte) bool{
	"alnum": func(b byte) bool { return isDigit(b) || isLetter(b) }, "alpha": isLetter, "digit": isDigit,
	"blank": func(b byte) bool { return b == ' ' || b == '\t' },
	"cntrl": func(b byte) bool { return b < ' ' || b == 0x7f },
	"graph": func(b byte) bool { return b > ' ' && b < 0x7f },
	"lower": func(b byte) bool { return b >= 'a' && b <= 'z' },
	"print": func(b byte) bool { return b >= ' ' && b < 0x7f },
	"punct": func(b byte) bool { return b > ' ' && b < 0x7f && !isDigit(b) && !isLetter(b) },
	"space": func(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' },
	"upper": func(b byte) bool { return b >= 'A' && b <= 'Z' },
	"xdigit": func(b byte) bool {
		return isDigit(b) || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
	},
}

func isDigit(b byte) bool  { return b >= '0' && b <= '9' }
func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

// matches reports whether the pattern matches a file or folder; name is relative to the folder of
// the ignore file.
func (p *pattern) matches(name string, folder bool) bool {
	if p.never || p.folders && !folder {
		return false
	}
	if p.base {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	rest, ok := strings.CutPrefix(name, p.literal)
	switch {
	case !ok:
		return false
	case len(p.tokens) == 0:
		return rest == ""
	}
	return matchTokens(p.tokens, rest)
}

// matchTokens follows all paths through the tokens at once, so that its time is bounded by the
// product of the two lengths.
func matchTokens(tokens []token, text string) bool {
	// at[i] is set if tokens[:i] match what has been read; inside[i] is set if the "**/" at i has
	// begun and waits for its '/'.
	n := len(tokens)
	at, next := make([]bool, n+1), make([]bool, n+1)
	inside, nextInside := make([]bool, n), make([]bool, n)
	reach := func(set []bool, i int) {
		for ; ; i++ {
			set[i] = true
			if i == n || tokens[i].kind == one {
				return
			}
		}
	}
	reach(at, 0)
	for k := range len(text) {
		b := text[k]
		clear(next)
		clear(nextInside)
		for i := range n {
			if !at[i] && !inside[i] {
				continue
			}
			switch tokens[i].kind {
			case one:
				if tokens[i].set[b] {
					reach(next, i+1)
				}
			case star:
				if b != '/' {
					reach(next, i)
				}
			case deep:
				reach(next, i)
			case folders:
				nextInside[i] = true
				if b == '/' {
					reach(next, i+1)
				}
			}
		}
		at, next, inside, nextInside = next, at, nextInside, inside
		if !slices.Contains(at, true) && !slices.Contains(inside, true) {
			return false
		}
	}
	return at[n]
}

// lastMatch returns the last of the patterns that matches, which is the one that decides.
func lastMatch(rules []pattern, name string, folder bool) *pattern {
	for i := len(rules) - 1; i >= 0; i-- {
		if rules[i].matches(name, folder) {
			return &rules[i]
		}
	}
	return nil
}

package space

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/problem"
)

// ParseSet parses the argument of --set: `k=v`, `k=a,b,c`, `k=start:end` or `k=start:end:step`.
// Numbers and the flags true and false are the same as in a parameters file. Quotes around a value,
// a pair of brackets, or a backslash protect commas and colons; a value with colons is an interval
// only if all its parts are numbers. A list `k=[a,b]`, a formula `k={logspace: [-4,-1,4]}`,
// `k=!!python/tuple [1,4]` and `zip={a: [1, 2], b: [x, y]}` have the same meaning as in a
// parameters file.
func ParseSet(s string) (Axis, error) {
	a, f := parseSet(s)
	if f != nil {
		return Axis{}, problem.Errorf(f.Hint, "--set %q does not work: %s", s, f.Msg)
	}
	return a, nil
}

func parseSet(s string) (Axis, *problem.Error) {
	key, rest, found := strings.Cut(s, "=")
	if !found {
		return Axis{}, problem.Errorf("Write key=value, for example lr=0.1,0.01 or epoch=5:20:5.", "it has no '='")
	}
	if f := checkKey(key); f != nil {
		return Axis{}, f
	}
	if rest == "" {
		return Axis{}, problem.Errorf(`For an empty text write `+key+`='""' in the shell.`,
			"there is no value after '='")
	}
	if key == "zip" && strings.HasPrefix(rest, "{") && !formula.Get().MatchString(rest) {
		var zips []Axis
		const hint = "Write zip={lr: [0.1, 0.01], batch: [32, 64]}, with a space after each colon."
		f := flowValue(rest, hint, func(p *parameters, n *yaml.Node) { zips = p.zips([]*yaml.Node{n}) })
		if f != nil {
			return Axis{}, f
		}
		return zips[0], nil
	}
	quoted := `If it is text, put it in quotes: ` + key + `='"` + rest + `"'.`
	if isFlow(rest) {
		a := Axis{Key: key}
		if f := flowValue(rest, quoted, func(p *parameters, n *yaml.Node) { p.values(&a, n) }); f != nil {
			return Axis{}, f
		}
		return a, a.check()
	}
	words, f := splitWords(key, rest)
	if f != nil {
		return Axis{}, f
	}
	a := Axis{Key: key}
	for _, w := range words {
		parts := w.interval()
		switch {
		case len(parts) > 3:
			return Axis{}, problem.Errorf(`If it is text, put it in quotes: `+key+`='"`+w.text+`"'.`,
				"%s has %d numbers, and an interval has two or three", w.text, len(parts))
		case parts != nil && len(words) > 1:
			return Axis{}, problem.Errorf(`Give the interval alone, or put texts in quotes: `+key+`='"1:2","3:4"'.`,
				"the interval %s is inside a list", w.text)
		case parts != nil:
			a.Interval = parts
		case len(words) > 1 && w.isList():
			return Axis{}, problem.Errorf(`For texts write `+key+`='"`+w.text+`","[…]"', for single values leave `+
				`the brackets out.`, "the list %s is inside a list", w.text)
		case w.unfinished():
			return Axis{}, problem.Errorf(`Write start:end or start:end:step, like `+key+`=5:20:5. `+
				`If it is text, put it in quotes: `+key+`='"`+w.text+`"'.`,
				"the interval %s lacks a number", w.text)
		case w.literal:
			a.Values = append(a.Values, Value{Text: w.text})
		default:
			a.Values = append(a.Values, plainValue(w.text))
		}
	}
	f = a.check()
	if f != nil && len(a.Interval) == 2 {
		f.Hint += " " + quoted
	}
	return a, f
}

// LooksLikeTime reports whether the argument of --set is an interval that may be meant as a time of
// day or a duration, like t=9:30.
func LooksLikeTime(set string) bool {
	_, value, _ := strings.Cut(set, "=")
	hours, minutes, found := strings.Cut(value, ":")
	h, err := strconv.Atoi(hours)
	return found && err == nil && h >= 1 && h <= 24 && isNumber(hours) &&
		strings.Contains(" 00 15 30 45 ", " "+minutes+" ")
}

// word is one value of a --set argument.
type word struct {
	text    string
	literal bool // it was quoted or has an escape, so it is text in any case
}

// interval returns the numbers of `1:2:3`, or nil if the word is not an interval.
func (w word) interval() []json.Number {
	if w.literal || !strings.Contains(w.text, ":") {
		return nil
	}
	var numbers []json.Number
	for part := range strings.SplitSeq(w.text, ":") {
		if part = strings.TrimSpace(part); !isNumber(part) {
			return nil
		}
		numbers = append(numbers, json.Number(part))
	}
	return numbers
}

// unfinished reports whether the word is an interval with a missing number, like `1:` and `:5:2`.
func (w word) unfinished() bool {
	numbers, gaps := 0, 0
	for part := range strings.SplitSeq(w.text, ":") {
		switch part = strings.TrimSpace(part); {
		case part == "":
			gaps++
		case isNumber(part):
			numbers++
		default:
			return false
		}
	}
	return !w.literal && numbers > 0 && gaps > 0
}

// splitWords splits s at the commas outside of quotes.
func splitWords(key, s string) ([]word, *problem.Error) {
	var words []word
	for {
		w, rest, f := nextWord(strings.TrimLeft(s, " "))
		if f != nil {
			return nil, f
		}
		if w.text == "" && !w.literal {
			return nil, problem.Errorf(`Remove one comma, or write "" for empty text, like `+key+`='a,""'.`,
				"a value in the list is empty")
		}
		words = append(words, w)
		if rest == "" {
			return words, nil
		}
		s = rest[1:]
	}
}

// nextWord reads one value; rest is empty or starts with the comma after it.
func nextWord(s string) (w word, rest string, f *problem.Error) {
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		return quotedWord(s)
	}
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`,:\"'`, s[i+1]) >= 0:
			w.literal = true
			i++
			text.WriteByte(s[i])
		case strings.IndexByte("[({", c) >= 0:
			n, closed := bracketed(s[i:])
			if strings.Contains(s[i:i+n], `\`) {
				n = 1 // its escapes show what they protect
			} else if !closed && strings.IndexByte(s[i:], ',') >= 0 {
				return w, "", problem.Errorf("Close it, or put the text in quotes: '\"...\"'.",
					"the bracket %c is not closed before a comma", c)
			}
			text.WriteString(s[i : i+n])
			i += n - 1
		case c == ',':
			w.text = strings.TrimRight(text.String(), " ")
			return w, s[i:], nil
		default:
			text.WriteByte(c)
		}
	}
	w.text = strings.TrimRight(text.String(), " ")
	return w, "", nil
}

func quotedWord(s string) (word, string, *problem.Error) {
	var text strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == s[0] || s[i+1] == '\\'):
			i++
			text.WriteByte(s[i])
		case c == s[0]:
			rest := strings.TrimLeft(s[i+1:], " ")
			if rest != "" && rest[0] != ',' {
				return word{}, "", problem.Errorf("Put a comma between values.", "text follows the closing quote")
			}
			return word{text: text.String(), literal: true}, rest, nil
		default:
			text.WriteByte(c)
		}
	}
	return word{}, "", problem.Errorf(`Close it, or write \`+s[:1]+` if the value starts with a quote.`,
		"the quote %s is not closed", s[:1])
}

// MergeSets overrides the axes of a file with those of --set: the values of a known key are
// replaced, and new keys come last. Zipped axes are replaced together.
func MergeSets(axes, sets []Axis) ([]Axis, error) {
	out := slices.Clone(axes)
	seen := map[string]bool{}
	for _, a := range sets {
		keys := a.keys()
		for _, key := range keys {
			if seen[key] {
				return nil, problem.Errorf("Give all its values at once, like "+key+"=1,2,3.", "--set gives %s twice",
					key)
			}
			seen[key] = true
		}
		at := len(out)
		for k := len(out) - 1; k >= 0; k-- {
			common := 0
			for _, key := range out[k].keys() {
				if slices.Contains(keys, key) {
					common++
				}
			}
			switch {
			case common == 0:
				continue
			case common < len(out[k].keys()):
				return nil, problem.Errorf("Give values of all of them: zip={…: […], …: […]}.",
					"--set gives %s, but %s go together", namesOf(a), namesOf(out[k]))
			}
			out, at = slices.Delete(out, k, k+1), k
		}
		out = slices.Insert(out, min(at, len(out)), a)
	}
	return out, nil
}

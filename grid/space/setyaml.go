package space

import (
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// bracketed returns the length of the text up to the bracket that closes the first one, or 1 if it
// is not closed.
func bracketed(s string) (n int, closed bool) {
	var open []byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		// i > 0, because the first byte is a bracket
		case (c == '"' || c == '\'') && strings.IndexByte("[({,: ", s[i-1]) >= 0:
			if end := strings.IndexByte(s[i+1:], c); end >= 0 {
				i += end + 1
			}
		case c == '[':
			open = append(open, ']')
		case c == '(':
			open = append(open, ')')
		case c == '{':
			open = append(open, '}')
		case c == ']' || c == ')' || c == '}':
			if open[len(open)-1] != c {
				return 1, false
			}
			if open = open[:len(open)-1]; len(open) == 0 {
				return i + 1, true
			}
		}
	}
	return 1, false
}

// formula matches the beginning of a map that parameters.yml knows, or a near miss.
var formula = lazyregexp.New(`^\{\s*["']?(start|end|stop|step|lin\w*|log\w*|\w*space)["']?\s*:`)

// isFlow reports whether the whole value of --set is a list, a formula or a tagged value in the
// syntax of a parameters file. A list needs a comma, because a single text in brackets, like
// [NH4+], is more likely to be literal.
func isFlow(s string) bool {
	if strings.HasPrefix(s, "!!") || formula.Get().MatchString(s) {
		return true
	}
	return !strings.Contains(s, `\`) && (word{text: strings.TrimSpace(s)}).isList()
}

// isList reports whether the word is a bracketed list of several values, or of one number.
func (w word) isList() bool {
	if w.literal || !strings.HasPrefix(w.text, "[") {
		return false
	}
	n, closed := bracketed(w.text)
	inner := w.text[1:max(n-1, 1)]
	return closed && n == len(w.text) && (strings.Contains(inner, ",") || isNumber(strings.Trim(inner, " []")))
}

// flowValue parses a YAML value with read. The hint is added to the first problem.
func flowValue(text, hint string, read func(p *parameters, n *yaml.Node)) *problem.Error {
	if wrong := yamlfile.Check("", []byte(text)); wrong != nil {
		return problem.Errorf(wrong.Hint, "%s", wrong.Msg)
	}
	doc, err := yamlfile.Decode(yaml.NewDecoder(strings.NewReader(text)))
	if err != nil {
		return problem.Errorf(hint, "%s is neither a list nor a formula of parameters.yml", text)
	}
	p := parameters{seen: map[string]int{}}
	read(&p, doc.Content[0])
	if len(p.problems) > 0 {
		first := p.problems[0]
		return problem.Errorf(strings.TrimSpace(first.Hint+" "+hint), "%s", first.Msg)
	}
	return nil
}

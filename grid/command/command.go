// Package command builds the command of a trial from the command of its task and the trial's
// parameters: arguments, placeholders, and options. If a shell reads the command, the package
// parses the script and quotes each value for its position, so that no value is ever read as code.
package command

import (
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"mlfnode/grid/problem"
	"mlfnode/grid/space"
)

// Template is the command of a task, with placeholders `{key}` for parameters. Either Args or Shell
// is set.
type Template struct {
	Args      []string     // program and arguments
	Shell     string       // a script for `/bin/sh -c`
	Constants space.Params // options of every point
	Repeat    bool         // the parameter space.RepeatKey is not an option
}

// Argv returns the program and arguments of one point. Constants come first, then the parameters; a
// parameter replaces a constant with the same key. An option is `--key=value`, `--key` for a true
// flag, nothing for a false one and `--key a b` for a list. A `{key}` in the command is replaced by
// the value, and that key is not appended; any other brace stays, including doubled ones.
//
// A shell command becomes `/bin/sh -c script`. There, and in the script of a command like `bash -c
// script`, a value is quoted as its position requires, so that it is never read as code, and
// `${key}` is left to the shell. A command that Check rejects becomes one that prints the reason
// and fails.
func (t *Template) Argv(p space.Params) []string {
	c := t.expand(p)
	argv, err := c.argv(t)
	if err != nil {
		return []string{"/bin/sh", "-c", "echo " + quote(err.Error()) + " >&2; exit 2"}
	}
	return argv
}

// Check returns an error if a placeholder, or a constant, is at a position where no quoting keeps a
// shell from reading a value as code, or if a key must be appended to a command that takes no
// further options.
func (t *Template) Check(keys []string) error {
	p := make(space.Params, len(keys))
	for i, k := range keys {
		p[i] = space.Param{Key: k, Value: space.Value{Text: "x"}}
	}
	_, err := t.expand(p).argv(t)
	return err
}

func (c *expansion) argv(t *Template) ([]string, error) {
	if t.Shell != "" {
		filled, err := c.fillScript(strings.TrimRight(t.Shell, " \t\n"), true, syntax.LangBash, syntax.LangPOSIX)
		return []string{"/bin/sh", "-c", filled}, err
	}
	argv := make([]string, 0, len(t.Args)+len(c.params))
	script := -1
	if slices.ContainsFunc(t.Args, func(s string) bool { return strings.IndexByte(s, '{') >= 0 }) {
		script = scriptArgument(t.Args)
	}
	for i, element := range t.Args {
		if i == script {
			filled, err := c.fillScript(element, false, syntax.LangBash, syntax.LangPOSIX)
			if err != nil {
				return nil, err
			}
			argv = append(argv, filled)
			continue
		}
		if k, length := c.placeholder(element); k >= 0 && length == len(element) &&
			c.params[k].Value.Kind == space.List && interpretationOf(t.Args, i) == asText {
			c.used[k] = true
			argv = append(argv, c.params[k].Value.Words()...)
			continue
		}
		filled, values := c.replace(element)
		if filled != element {
			if err := checkValues(t.Args, i, values); err != nil {
				return nil, err
			}
		}
		argv = append(argv, filled)
	}
	named := len(argv)
	argv = c.appendOptions(argv)
	if err := checkPlain(argv[named:]...); err != nil && interpretationOf(t.Args, len(t.Args)) == asWords {
		return nil, err
	}
	return argv, nil
}

// checkValues returns an error for values in an argument that the program passes to a shell.
func checkValues(words []string, at int, values []string) error {
	switch interpretationOf(words, at) {
	case asCode:
		return problem.Errorf("Give the value to a program as an argument, or run the script with sh -c.",
			"the command has a parameter in the arguments of %s, which would read its value as code",
			words[commandIndex(words)])
	case asWords:
		return checkPlain(values...)
	}
	return nil
}

// checkPlain returns an error if another shell, perhaps on another machine, would not read each
// value as one literal word.
func checkPlain(values ...string) error {
	for _, v := range values {
		if !isSafe(v) {
			return problem.Errorf("Use values of letters, digits and any of _@%+:,./-= there.",
				"another shell reads the command's arguments again, and would read %s as more than text",
				quoteForDisplay(v))
		}
	}
	return nil
}

// fillScript puts values into a shell script and, if append is set, the other options after its
// last command.
func (c *expansion) fillScript(text string, append bool, dialects ...syntax.LangVariant) (string, error) {
	if f := checkScript(text); f != nil {
		return "", f
	}
	s := readScript(text, func(key string) bool { return c.paramIndex(key) >= 0 }, dialects...)
	if len(s.placeholders) > maxPlaceholders {
		return "", problem.Errorf("Put a value into a variable of the shell, and use that.",
			"the command has more than %d placeholders", maxPlaceholders)
	}
	if s.err != nil && len(s.placeholders) > 0 {
		return "", problem.Errorf("Correct the script, or pass the values as arguments.",
			"the command has {%s}, and a shell would not understand it: %v", s.placeholders[0].key, s.err)
	}
	for _, h := range s.placeholders {
		if h.refusal != nil {
			return "", h.refusal
		}
		if h.plain && h.place != inText {
			if err := checkPlain(c.text(c.paramIndex(h.key))); err != nil {
				return "", err
			}
		}
		if h.place != inText {
			c.used[c.paramIndex(h.key)] = true
		}
	}
	options := ""
	if append {
		if s.plain {
			if err := checkPlain(c.options()...); err != nil {
				return "", err
			}
		}
		for _, o := range c.options() {
			options += " " + quote(o)
		}
	}
	if options != "" && s.end != nil {
		key, _, _ := strings.Cut(strings.TrimPrefix(c.options()[0], "--"), "=")
		return "", problem.Errorf(fmt.Sprintf(s.end.Hint, key), "%s", s.end.Msg)
	}
	return s.fill(func(key string) string { return c.text(c.paramIndex(key)) }, options), nil
}

// text returns a parameter as one string: the arguments of a list are separated by spaces.
func (c *expansion) text(k int) string { return strings.Join(c.params[k].Value.Words(), " ") }

// paramIndex returns the index of a parameter, or -1.
func (c *expansion) paramIndex(key string) int {
	return slices.IndexFunc(c.params, func(p space.Param) bool { return p.Key == key })
}

// Display returns the command of one point as a line that people can read and paste into a shell.
func (t *Template) Display(p space.Params) string {
	argv := t.Argv(p)
	if t.Shell != "" && isPrintable(argv[2]) {
		return argv[2]
	}
	return Quote(argv...)
}

// Quote returns words as a line that people can read and paste into a shell.
func Quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteForDisplay(w)
	}
	return strings.Join(quoted, " ")
}

// expansion builds the arguments of one point.
type expansion struct {
	params space.Params
	used   []bool // whether each parameter occurs in the command itself
}

func (t *Template) expand(p space.Params) *expansion {
	all := make(space.Params, 0, len(t.Constants)+len(p))
	all = append(all, t.Constants...)
	for _, q := range p {
		if old := all.Find(q.Key); old != nil {
			*old = q
		} else {
			all = append(all, q)
		}
	}
	c := &expansion{params: all, used: make([]bool, len(all))}
	if k := c.paramIndex(space.RepeatKey); t.Repeat && k >= 0 {
		c.used[k] = true // it is not an option
	}
	return c
}

// placeholder parses `{key}` at the start of s. It returns the parameter's index, or -1 if s starts
// with something else.
func (c *expansion) placeholder(s string) (place, length int) {
	end := strings.IndexByte(s, '}')
	if end < 0 || s[0] != '{' {
		return -1, 0
	}
	return c.paramIndex(s[1:end]), end + 1
}

// replace replaces the placeholders in an argument, and also returns the values that it put there.
func (c *expansion) replace(element string) (filled string, values []string) {
	if strings.IndexByte(element, '{') < 0 {
		return element, nil
	}
	var b strings.Builder
	for len(element) > 0 {
		n := 1
		if strings.HasPrefix(element, "{{") {
			n = 2
		} else if k, length := c.placeholder(element); k >= 0 {
			c.used[k] = true
			value := c.text(k)
			values = append(values, value)
			b.WriteString(value)
			element = element[length:]
			continue
		}
		b.WriteString(element[:n])
		element = element[n:]
	}
	return b.String(), values
}

// options returns the parameters that do not occur in the command itself.
func (c *expansion) options() []string { return c.appendOptions(nil) }

func (c *expansion) appendOptions(out []string) []string {
	for k, q := range c.params {
		switch {
		case c.used[k] || q.Value.Kind == space.False:
		case q.Value.Kind == space.True:
			out = append(out, "--"+q.Key)
		case q.Value.Kind == space.List:
			out = append(append(out, "--"+q.Key), q.Value.Words()...)
		default:
			out = append(out, "--"+q.Key+"="+q.Value.Text)
		}
	}
	return out
}

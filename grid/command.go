package grid

import "strings"

// Argv gives the program and arguments of one point. Constants come first, then the parameters; a parameter with the key of a
// constant takes its place. Every option is `--key=value`, `--key` for a true flag and nothing for a false one. `{key}` in the
// command is replaced by the value, and that key is not appended; any other brace stays, doubled ones too. A shell command
// becomes `/bin/sh -c script` with every value quoted as its place in the script asks; `${key}` there is the shell's own.
func (t *Task) Argv(p Params) []string {
	c := t.command(p)
	if t.Shell != "" {
		return []string{"/bin/sh", "-c", c.script(t.Shell)}
	}
	argv := make([]string, 0, len(t.Command)+len(c.params))
	for _, element := range t.Command {
		argv = append(argv, c.expand(element))
	}
	return append(argv, c.options()...)
}

// Display gives the command of one point as a line that a person can read and paste into a shell.
func (t *Task) Display(p Params) string {
	argv := t.Argv(p)
	if t.Shell != "" && isVisible(argv[2]) {
		return argv[2]
	}
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = quoteVisible(a)
	}
	return strings.Join(words, " ")
}

// command is the making of one point's arguments.
type command struct {
	params Params
	used   []bool // the parameter stands in the command itself
}

func (t *Task) command(p Params) *command {
	all := make(Params, 0, len(t.Constants)+len(p))
	all = append(all, t.Constants...)
	for _, q := range p {
		if old := all.find(q.Key); old != nil {
			*old = q
		} else {
			all = append(all, q)
		}
	}
	return &command{params: all, used: make([]bool, len(all))}
}

// placeholder reads `{key}` at the start of s. It gives the parameter's place, or -1 when s starts with something else.
func (c *command) placeholder(s string) (place, length int) {
	end := strings.IndexByte(s, '}')
	if end < 0 || s[0] != '{' {
		return -1, 0
	}
	for k := range c.params {
		if c.params[k].Key == s[1:end] {
			return k, end + 1
		}
	}
	return -1, 0
}

func (c *command) expand(element string) string {
	if strings.IndexByte(element, '{') < 0 {
		return element
	}
	var b strings.Builder
	for len(element) > 0 {
		n := 1
		if strings.HasPrefix(element, "{{") {
			n = 2
		} else if k, length := c.placeholder(element); k >= 0 {
			c.used[k] = true
			b.WriteString(clean(c.params[k].Value).Text)
			element = element[length:]
			continue
		}
		b.WriteString(element[:n])
		element = element[n:]
	}
	return b.String()
}

// script fills a shell script in and puts the other options behind its last command.
func (c *command) script(shell string) string {
	var b strings.Builder
	var state shellState
	shell = strings.TrimRight(shell, " \t\n")
	for rest := shell; len(rest) > 0; {
		if k, length := c.placeholder(rest); k >= 0 && !strings.HasSuffix(shell[:len(shell)-len(rest)], "{") && !strings.HasSuffix(shell[:len(shell)-len(rest)], "$") {
			c.used[k] = true
			b.WriteString(state.embed(clean(c.params[k].Value).Text))
			rest, state.word = rest[length:], true
			continue
		}
		n := state.next(rest)
		b.WriteString(rest[:n])
		rest = rest[n:]
	}
	for _, o := range c.options() {
		b.WriteString(" " + quote(o))
	}
	return b.String()
}

// options gives the parameters that the command does not name itself.
func (c *command) options() []string {
	var out []string
	for k, q := range c.params {
		switch {
		case c.used[k] || q.Value.Kind == False:
		case q.Value.Kind == True:
			out = append(out, "--"+q.Key)
		default:
			out = append(out, "--"+q.Key+"="+q.Value.Text)
		}
	}
	return out
}

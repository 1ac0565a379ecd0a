package projects

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/lazyregexp"
)

// The statements of a function that determine which command it runs.
var (
	assignment = lazyregexp.New(`^(\s+)(\w+)\s*=\s*([^=].*)?$`)
	growth     = lazyregexp.New(`^\s+(\w+)(?:\s*\+=|\.(?:append|extend|insert)\()`)
	growthOf   = lazyregexp.New(`^\s+\w+\s*(\+=|\.append\(|\.extend\()`)
)

// candidate is an assignment to a name that may hold the command.
type candidate struct {
	line   int // from 0
	indent int
	value  any // nil if it is computed
}

// findCommand finds the command of one function, whose lines are those from begin up to end. A name
// may be assigned several commands one after the other, as in the old template, where the first one
// reports the machine's name. The command is what the name holds when the parameters are appended
// to it, or else the last assignment. It returns false for a function without a command.
func (im *importer) findCommand(f oldFunction, lines []string, begin, end int) bool {
	name := commandName(lines[begin:end])
	var all []candidate
	chosen := -1
	grown := false
	for i := begin; i < end; i++ {
		m := assignment.Get().FindStringSubmatch(lines[i])
		switch {
		case m != nil && m[2] == name && regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).MatchString(code(m[3])):
			grown = true // matches name = name + options
		case m != nil && m[2] == name:
			c := candidate{line: i, indent: len(m[1])}
			at := strings.Index(lines[i], "=") + 1
			if v, err := statement(strings.TrimLeft(strings.Join(lines[i:end], "\n")[at:], " \t")); err == nil {
				c.value = v
			}
			all = append(all, c)
			// A conditional assignment does not replace an unconditional one.
			if !grown && (chosen < 0 || c.indent <= all[chosen].indent) {
				chosen = len(all) - 1
			}
		case growth.Get().FindStringSubmatch(lines[i]) != nil && growth.Get().FindStringSubmatch(lines[i])[1] == name:
			more, ok := appended(strings.Join(lines[i:end], "\n"))
			switch {
			case !ok || len(all) == 0:
				grown = true
			case grown || indentOf(lines[i]) != all[len(all)-1].indent || !all[len(all)-1].add(more):
				im.addNote("tasks.py", i+1,
					"the task %s adds to its command here, after parameters or under a condition; look at `command`",
					f.name)
			}
		}
	}
	if chosen < 0 {
		return false
	}
	im.addTask(f, all, chosen)
	return true
}

// appended reads what a line appends to the command if that is a literal: a list, or text if the
// command is text.
func appended(text string) (v any, ok bool) {
	m := growthOf.Get().FindStringSubmatchIndex(text)
	if m == nil {
		return nil, false
	}
	operator, right := text[m[2]:m[3]], text[m[1]:]
	if operator == "+=" {
		v, err := statement(right)
		return v, err == nil
	}
	v, rest, err := literal(right)
	if err != nil || !strings.HasPrefix(strings.TrimLeft(rest, " \t\n"), ")") {
		return nil, false
	}
	if operator == ".append(" {
		v = []any{v}
	}
	return v, true
}

// add appends to what the command has so far; it returns false if the two are of different kinds.
func (c *candidate) add(more any) bool {
	switch v := c.value.(type) {
	case []any:
		if list, ok := more.([]any); ok {
			c.value = append(slices.Clone(v), list...)
			return true
		}
	case string:
		if text, ok := more.(string); ok {
			c.value = v + text
			return true
		}
	case nil:
		return true // its note says that the user must fill it in
	}
	return false
}

// addTask adds a task with the chosen command, and notes the others.
func (im *importer) addTask(f oldFunction, all []candidate, chosen int) {
	t := oldTask{name: f.name}
	c := all[chosen]
	var err error
	if t.command, t.shell, err = im.command(c.value); err != nil {
		im.addNote("tasks.py", c.line+1,
			"the command of task %s is computed, not written down; fill in `command`", t.name)
		t.command = []string{"echo", "fill in the command of " + t.name}
	}
	for i, o := range all {
		switch {
		case i == chosen:
		case o.indent > c.indent:
			im.addNote("tasks.py", o.line+1,
				"the task %s has another command here, under a condition; the one of line %d was taken",
				t.name, c.line+1)
		default:
			im.addNote("tasks.py", o.line+1,
				"the task %s has another command here, which gets no parameters; the one of line %d was taken",
				t.name, c.line+1)
		}
	}
	if !slices.Contains(im.report.Tasks, t.name) {
		im.tasks = append(im.tasks, t)
		im.report.Tasks = append(im.report.Tasks, t.name)
	}
}

// commandName returns the name that holds the command: cmd, unless the options are appended to
// another list or string.
func commandName(lines []string) string {
	grown := ""
	for _, line := range lines {
		m := assignment.Get().FindStringSubmatch(line)
		if m != nil && m[2] == "cmd" {
			return "cmd"
		}
		if g := growth.Get().FindStringSubmatch(line); g != nil && grown == "" {
			grown = g[1]
		}
	}
	for _, line := range lines {
		if m := assignment.Get().FindStringSubmatch(line); m != nil && m[2] == grown {
			if v, err := statement(m[3]); err == nil {
				if list, ok := v.([]any); ok && len(list) > 0 {
					return grown
				}
			}
		}
	}
	return "cmd"
}

// code returns a line of Python without its strings and its comment.
func code(line string) string {
	line = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`).ReplaceAllString(line, `""`)
	line, _, _ = strings.Cut(line, "#")
	return line
}

// The statements of a loop that counts.
var (
	rangeLoop = lazyregexp.New(
		`^(\s*)for\s+(\w+)\s+in\s+x?range\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?(?:,\s*(-?\d+)\s*)?\)\s*:`)
	setNumber = lazyregexp.New(`^\s*(\w+)\s*=\s*(-?\d+)\s*(?:#.*)?$`)
	addNumber = lazyregexp.New(`^\s*(\w+)\s*([+*-])=\s*(-?\w+)\s*(?:#.*)?$`)
	sumNumber = lazyregexp.New(`^\s*(\w+)\s*=\s*(\w+)\s*([+*-])\s*(-?\w+)\s*(?:#.*)?$`)
	callWords = lazyregexp.New(`[A-Za-z_]\w*`)
)

// maxIterations bounds the iterations of a loop that is followed.
const maxIterations = 1000

// arguments follows a loop over a range that computes the arguments of a task, and returns text
// such as "n = 5, 6, 8". It returns "" if the loop does anything else. It runs nothing: it
// interprets the loop's few statements.
func arguments(lines []string, call int) string {
	top := -1
	var m []string
	for i := call - 1; i >= 0 && top < 0; i-- {
		if strings.TrimSpace(lines[i]) != "" && indentOf(lines[i]) < indentOf(lines[call]) {
			if m = rangeLoop.Get().FindStringSubmatch(lines[i]); m == nil {
				return ""
			}
			top = i
		}
	}
	if top < 0 {
		return ""
	}
	known := map[string]int64{}
	for _, line := range lines[:top] {
		if s := setNumber.Get().FindStringSubmatch(line); s != nil {
			known[s[1]], _ = strconv.ParseInt(s[2], 10, 64) // only digits, so it can't fail
		}
	}
	lo, hi, step := int64(0), number64(m[3]), int64(1)
	if m[4] != "" {
		lo, hi = hi, number64(m[4])
	}
	if m[5] != "" {
		step = number64(m[5])
	}
	var name string
	var values []string
	for v := lo; step > 0 && v < hi || step < 0 && v > hi; v += step {
		if len(values) > maxIterations {
			return ""
		}
		known[m[2]] = v
		for i := top + 1; i <= call; i++ {
			if i == call {
				_, inside, _ := strings.Cut(taskCall.Get().ReplaceAllString(lines[i], "\x00"), "\x00")
				for _, w := range callWords.Get().FindAllString(code(inside), -1) {
					if n, ok := known[w]; ok && (name == "" || name == w) {
						name = w
						values = append(values, strconv.FormatInt(n, 10))
						break
					}
				}
				continue
			}
			if !compute(known, lines[i]) {
				return ""
			}
		}
	}
	if name == "" {
		return ""
	}
	return name + " = " + strings.Join(values, ", ")
}

// compute interprets one statement; it returns false for one that may change a name in an unknown
// way.
func compute(known map[string]int64, line string) bool {
	value := func(w string) (int64, bool) {
		if n, err := strconv.ParseInt(w, 10, 64); err == nil {
			return n, true
		}
		n, ok := known[w]
		return n, ok
	}
	target, left, operator, right := "", "", "", ""
	switch {
	case addNumber.Get().MatchString(line):
		s := addNumber.Get().FindStringSubmatch(line)
		target, left, operator, right = s[1], s[1], s[2], s[3]
	case sumNumber.Get().MatchString(line):
		s := sumNumber.Get().FindStringSubmatch(line)
		target, left, operator, right = s[1], s[2], s[3], s[4]
	case setNumber.Get().MatchString(line):
		s := setNumber.Get().FindStringSubmatch(line)
		known[s[1]] = number64(s[2])
		return true
	default:
		m := assignment.Get().FindStringSubmatch(line)
		if m == nil {
			return true
		}
		_, changes := known[m[2]]
		return !changes
	}
	a, okA := value(left)
	b, okB := value(right)
	if !okA || !okB {
		delete(known, target)
		return true
	}
	switch operator {
	case "+":
		known[target] = a + b
	case "-":
		known[target] = a - b
	default:
		known[target] = a * b
	}
	return true
}

func number64(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // only digits, so it can't fail
	return n
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

package projects

import (
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
)

// checkpoint reads how a task saves its state. An empty map declares it with the defaults.
func (s *schema) checkpoint(what string, n *yaml.Node, t *task) {
	c := grid.DefaultCheckpoint()
	t.Checkpoint = &c
	// checked reports a value that a task may not have at its own place. The field keeps its default then.
	checked := func(read field) field {
		return func(what string, n *yaml.Node) {
			before, problems := c, len(s.problems)
			read(what, n)
			if err := c.Check(); err != nil && len(s.problems) == problems {
				s.report(n, "", "%s", err)
			}
			if len(s.problems) > problems {
				c = before
			}
		}
	}
	s.fields(what, n, "{grace: 2m, every: 30m}", map[string]field{
		"signal": checked(func(what string, n *yaml.Node) {
			text, _ := s.filled(what, n)
			c.Signal = strings.TrimPrefix(strings.ToUpper(text), "SIG")
		}),
		"grace":    checked(func(what string, n *yaml.Node) { s.duration(what, n, &c.Grace) }),
		"every":    checked(func(what string, n *yaml.Node) { s.duration(what, n, &c.Every) }),
		"quiet":    checked(func(what string, n *yaml.Node) { s.duration(what, n, &c.Quiet) }),
		"max_size": checked(func(what string, n *yaml.Node) { s.size(what, n, &c.MaxSize) }),
		"repeats": checked(func(what string, n *yaml.Node) {
			text, ok := s.filled(what, n)
			v, err := strconv.Atoi(text)
			if c.Repeats = v; ok && err != nil {
				s.report(n, "Give a whole number.", "checkpoint.repeats is %q", text)
			}
		}),
		"on_timeout": checked(func(what string, n *yaml.Node) { c.OnTimeout, _ = s.filled(what, n) }),
	})
}

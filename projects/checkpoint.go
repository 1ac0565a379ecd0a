package projects

import (
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
)

// checkpoint reads how a task saves its state. An empty map declares a checkpoint with the
// defaults.
func (s *schema) checkpoint(what string, n *yaml.Node, t *task) {
	c := grid.DefaultCheckpoint()
	t.Checkpoint = &c
	s.fields(what, n, "{grace: 2m, every: 30m}", s.checkpointFields(&c))
}

func (s *schema) checkpointFields(c *grid.Checkpoint) map[string]field {
	// checked reports a value that a task may not have, at the place of that value. The field then
	// keeps its default.
	checked := func(read func(what string, n *yaml.Node)) func(what string, n *yaml.Node) {
		return func(what string, n *yaml.Node) {
			before, problems := *c, len(s.problems)
			read(what, n)
			if err := c.Check(); err != nil && len(s.problems) == problems {
				s.report(n, "", "%s", err)
			}
			if len(s.problems) > problems {
				*c = before
			}
		}
	}
	return map[string]field{
		"signal": {jsonschema.Text, checked(func(what string, n *yaml.Node) {
			text, _ := s.filled(what, n)
			c.Signal = strings.TrimPrefix(strings.ToUpper(text), "SIG")
		})},
		"grace":    {jsonschema.Duration, checked(func(what string, n *yaml.Node) { s.duration(what, n, &c.Grace) })},
		"every":    {jsonschema.Duration, checked(func(what string, n *yaml.Node) { s.duration(what, n, &c.Every) })},
		"quiet":    {jsonschema.Duration, checked(func(what string, n *yaml.Node) { s.duration(what, n, &c.Quiet) })},
		"max_size": {jsonschema.Size, checked(func(what string, n *yaml.Node) { s.size(what, n, &c.MaxSize) })},
		"repeats": {jsonschema.Count, checked(func(what string, n *yaml.Node) {
			text, ok := s.filled(what, n)
			v, err := strconv.Atoi(text)
			if c.Repeats = v; ok && err != nil {
				s.report(n, "Give a whole number.", "checkpoint.repeats is %q", text)
			}
		})},
		"on_timeout": {jsonschema.Choice(grid.TimeoutFails, grid.TimeoutResumes), checked(func(what string, n *yaml.Node) { c.OnTimeout, _ = s.filled(what, n) })},
	}
}

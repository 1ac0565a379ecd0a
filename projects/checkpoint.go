package projects

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
)

// checkpoint reads how a task saves its state. An empty map declares it with the defaults.
func (s *schema) checkpoint(what string, n *yaml.Node, t *task) {
	c := grid.DefaultCheckpoint()
	t.Checkpoint = &c
	s.fields(what, n, "{grace: 2m, every: 30m}", map[string]field{
		"signal": func(what string, n *yaml.Node) {
			text, ok := s.filled(what, n)
			c.Signal = strings.TrimPrefix(strings.ToUpper(text), "SIG")
			if ok && !slices.Contains(grid.CheckpointSignals(), c.Signal) {
				s.report(n, "Use "+strings.Join(grid.CheckpointSignals(), ", ")+".", "%s is %q, which is not a signal for a notice", what, text)
			}
		},
		"grace": func(what string, n *yaml.Node) {
			s.duration(what, n, &c.Grace)
			if c.Grace > grid.MaxCheckpointGrace {
				s.report(n, "Give at most 10m.", "grace of checkpoint is %s", c.Grace)
			}
		},
		"every": func(what string, n *yaml.Node) { s.duration(what, n, &c.Every) },
		"quiet": func(what string, n *yaml.Node) { s.duration(what, n, &c.Quiet) },
		"max_size": func(what string, n *yaml.Node) {
			s.size(what, n, &c.MaxSize)
			if c.MaxSize == 0 {
				s.report(n, "Write it like 10GiB.", "max_size is 0")
			}
		},
		"repeats": func(what string, n *yaml.Node) {
			text, ok := s.filled(what, n)
			v, err := strconv.Atoi(text)
			if ok && (err != nil || v < 0 || v > grid.MaxRepeats) {
				s.report(n, "Give a whole number from 0 to 1000000.", "%s is %q, which is not a number of repeats", what, text)
			}
			c.Repeats = v
		},
		"done": func(what string, n *yaml.Node) { s.choice(what, n, &c.Done, grid.DoneAgain, grid.DoneExit) },
		"on_timeout": func(what string, n *yaml.Node) {
			s.choice(what, n, &c.OnTimeout, grid.TimeoutFails, grid.TimeoutResumes)
		},
	})
}

// choice reads one of a few words.
func (s *schema) choice(what string, n *yaml.Node, to *string, words ...string) {
	text, ok := s.filled(what, n)
	if ok && !slices.Contains(words, text) {
		s.report(n, "Write "+strings.Join(words, " or ")+".", "%s is %q", what, text)
		return
	}
	*to = text
}

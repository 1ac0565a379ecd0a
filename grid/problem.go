package grid

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Problem is one thing that is wrong in a file that the user wrote, with its place and what to try.
type Problem struct {
	File      string
	Line, Col int    // from 1
	Msg       string // what is wrong: one sentence without its period
	Hint      string // what to try: one sentence with its period
}

// ProblemAt places a problem at a YAML node.
func ProblemAt(file string, n *yaml.Node, msg, hint string) Problem {
	return Problem{File: file, Line: n.Line, Col: n.Column, Msg: msg, Hint: hint}
}

// Error gives `parameters.yml:3:7: what is wrong. What to try.`
func (p Problem) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, sentences(p.Msg, p.Hint))
}

// MaxProblems is how many problems of one file are kept: more would scroll the first ones away.
const MaxProblems = 20

// Problems are all that is wrong in a file. Use Err to return them as an error.
type Problems []Problem

// Add keeps a problem, unless MaxProblems are known already.
func (p *Problems) Add(q Problem) {
	if len(*p) < MaxProblems {
		*p = append(*p, q)
	}
}

// Err gives the problems in the order of their places, or nil when there are none.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	return p
}

// Error gives one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, 0, len(p)+1)
	for _, q := range p {
		lines = append(lines, q.Error())
	}
	if len(p) >= MaxProblems {
		lines = append(lines, "There may be more problems after these.")
	}
	return strings.Join(lines, "\n")
}

// flaw is a problem whose place is not known yet.
type flaw struct{ msg, hint string }

func (f *flaw) Error() string { return sentences(f.msg, f.hint) }

func sentences(msg, hint string) string {
	if hint == "" {
		return msg
	}
	return msg + ". " + hint
}

func flawf(hint, format string, args ...any) *flaw {
	return &flaw{msg: fmt.Sprintf(format, args...), hint: hint}
}

// Package problem describes errors in what a user wrote, in a file or elsewhere, with suggestions.
package problem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// InFile is one error in a file that the user wrote, with its position and a suggestion.
type InFile struct {
	File      string
	Line, Col int    // starting at 1
	Msg       string // what is wrong: one sentence without a period
	Hint      string // what to try: one sentence with a period
}

// Error returns `parameters.yml:3:7: what is wrong. What to try.`
func (p InFile) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, sentences(p.Msg, p.Hint))
}

// MaxListed bounds the problems that are kept for one file: more would scroll the first ones off
// the screen.
const MaxListed = 20

// List holds the problems of a file. Use Err to return it as an error.
type List []InFile

// Add adds a problem, unless there are MaxListed already.
func (p *List) Add(q InFile) {
	if len(*p) < MaxListed {
		*p = append(*p, q)
	}
}

// Err returns the problems in the order of their positions, or nil if there are none.
func (p List) Err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b InFile) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	return p
}

// Error returns one line for each problem.
func (p List) Error() string {
	lines := make([]string, 0, len(p)+1)
	for _, q := range p {
		lines = append(lines, q.Error())
	}
	if len(p) >= MaxListed {
		lines = append(lines, "There may be more problems after these.")
	}
	return strings.Join(lines, "\n")
}

// Error is a problem without a position: what is wrong, and what to try.
type Error struct{ Msg, Hint string }

// Error returns `what is wrong. What to try.`
func (f *Error) Error() string { return sentences(f.Msg, f.Hint) }

func sentences(msg, hint string) string {
	if hint == "" {
		return msg
	}
	return msg + ". " + hint
}

// Errorf returns a problem with a formatted message.
func Errorf(hint, format string, args ...any) *Error {
	return &Error{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// WriteOneOf returns the hint `Write a, b or c.`; there must be at least two choices.
func WriteOneOf[T ~string](choices []T) string {
	texts := make([]string, len(choices))
	for i, c := range choices {
		texts[i] = string(c)
	}
	last := len(texts) - 1
	return "Write " + strings.Join(texts[:last], ", ") + " or " + texts[last] + "."
}

// maxNearest bounds the names that Nearest returns.
const maxNearest = 3

// Nearest returns the known names that were probably meant by an unknown one: those that at most a
// third of its letters separate from it, the most similar ones first.
func Nearest(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d <= max(1, len(name)/3) {
			near = append(near, candidate{k, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return a.distance - b.distance })
	var names []string
	for _, c := range near[:min(len(near), maxNearest)] {
		names = append(names, c.name)
	}
	return names
}

// distance counts the letters to insert, delete or replace (Levenshtein), for at most 100 letters.
func distance(a, b string) int {
	if len(a) > 100 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// WithoutPath returns the cause of a file's error without its operation and its path, for a message
// that names the file already.
func WithoutPath(err error) error {
	var atPath *fs.PathError
	var atLink *os.LinkError
	switch {
	case errors.As(err, &atPath):
		return atPath.Err
	case errors.As(err, &atLink):
		return atLink.Err
	}
	return err
}

package grid

import (
	"strings"
	"unicode/utf8"

	"mlfnode/grid/problem"
)

// Origin describes where a submission came from, as claimed by the submitting program; nothing
// verifies it.
type Origin struct {
	User string `json:"user,omitempty"`
	Host string `json:"host,omitempty"`
	// Folder of the project, or the command's working folder if no files were sent.
	Folder  string    `json:"folder,omitempty"`
	Command []string  `json:"command,omitempty"` // as typed, without the values of --env
	Git     *Checkout `json:"git,omitempty"`     // nil if the folder is not a git checkout
}

// Checkout is the state of a git checkout.
type Checkout struct {
	Commit string `json:"commit"`           // empty before the first commit
	Branch string `json:"branch,omitempty"` // empty for a detached HEAD
	// Files that differ from the commit, as in "M train.py" and "?? new.py", at most MaxChanged.
	Changed []string `json:"changed,omitempty"`
	More    int      `json:"more,omitempty"` // number of other changed files
}

// Limits of an origin, which is part of a record that is rewritten with each change of the sweep.
const (
	MaxChanged     = 100
	MaxOriginBytes = 32 << 10 // of all strings together
)

// Check returns an error if the origin cannot be stored.
func (o *Origin) Check() error {
	if o == nil {
		return nil
	}
	texts := append([]string{o.User, o.Host, o.Folder}, o.Command...)
	if g := o.Git; g != nil {
		texts = append(append(texts, g.Commit, g.Branch), g.Changed...)
		if len(g.Changed) > MaxChanged || g.More < 0 {
			return problem.Errorf("Name the first 100, and count the others in more.",
				"origin.git names %d changed files", len(g.Changed))
		}
	}
	bytes := 0
	for _, text := range texts {
		bytes += len(text)
		if !utf8.ValidString(text) {
			return problem.Errorf("Write it as UTF-8.", "the origin of the sweep is not valid UTF-8")
		}
	}
	if bytes > MaxOriginBytes {
		return problem.Errorf("Use at most 32768.", "the origin of the sweep has %d bytes", bytes)
	}
	if len(o.User) > maxLabel || strings.ContainsFunc(o.User, isInvisible) {
		return problem.Errorf("Use at most 200 visible characters.", "origin.user %.60q is not a user's name", o.User)
	}
	return nil
}

// Truncate shortens an origin until it can be stored: first the files, then the command.
func (o *Origin) Truncate() {
	if g := o.Git; g != nil {
		kept := min(len(g.Changed), MaxChanged)
		for bytes := 0; kept > 0; kept-- {
			if bytes = len(strings.Join(g.Changed[:kept], "")); bytes <= MaxOriginBytes/4 {
				break
			}
		}
		g.More += len(g.Changed) - kept
		g.Changed = g.Changed[:kept]
	}
	for i, bytes := 0, 0; i < len(o.Command); i++ {
		if bytes += len(o.Command[i]); bytes > MaxOriginBytes/4 {
			o.Command = append(o.Command[:i:i], "…")
		}
	}
}

// Owner returns the user who submitted the sweep, or "" if unknown.
func (s *Sweep) Owner() string {
	if s.Origin == nil {
		return ""
	}
	return s.Origin.User
}

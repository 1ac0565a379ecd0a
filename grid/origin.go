package grid

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"mlfnode/grid/problem"
)

// Origin says where a submission came from. The program that submitted it says so; nobody has checked it.
type Origin struct {
	User    string    `json:"user,omitempty"`
	Host    string    `json:"host,omitempty"`
	Folder  string    `json:"folder,omitempty"`  // of the project; the one that the command ran in where no files travelled
	Command []string  `json:"command,omitempty"` // as it was typed, without the values of --env
	Git     *Checkout `json:"git,omitempty"`     // nil where git does not manage the folder
}

// Checkout is the state of a folder that git manages.
type Checkout struct {
	Commit  string   `json:"commit"`            // empty before the first one
	Branch  string   `json:"branch,omitempty"`  // empty for a detached HEAD
	Changed []string `json:"changed,omitempty"` // files that differ from the commit, as in "M train.py" and "?? new.py", at most MaxChanged
	More    int      `json:"more,omitempty"`    // how many others
}

// Bounds of an origin: it is part of a record that is written with each change of the sweep.
const (
	MaxChanged     = 100
	MaxOriginBytes = 32 << 10 // all texts together
)

// Check says why an origin can't be stored.
func (o *Origin) Check() error {
	if o == nil {
		return nil
	}
	texts := append([]string{o.User, o.Host, o.Folder}, o.Command...)
	if g := o.Git; g != nil {
		texts = append(append(texts, g.Commit, g.Branch), g.Changed...)
		if len(g.Changed) > MaxChanged || g.More < 0 {
			return problem.Errorf("Name the first 100, and count the others in more.", "origin.git names %d changed files", len(g.Changed))
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
	if strings.ContainsFunc(o.User, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) || len(o.User) > maxLabel {
		return problem.Errorf("Use at most 200 visible characters.", "origin.user %.60q is not a user's name", o.User)
	}
	return nil
}

// Truncate shortens an origin until it can be stored: files first, then the command.
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

// Owner is the user who submitted the sweep; empty where nobody said so.
func (s *Sweep) Owner() string {
	if s.Origin == nil {
		return ""
	}
	return s.Origin.User
}

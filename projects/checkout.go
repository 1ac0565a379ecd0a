package projects

import (
	"strings"

	"mlfnode/grid"
)

// Checkout says which commit a folder is at, and which of its files differ from that. It is nil where git, which refuses repositories
// of other users, knows nothing about the folder.
func Checkout(dir string) *grid.Checkout {
	status, err := gitIn(dir, "--no-optional-locks", "status", "--porcelain", "-z", "--", ".")
	if err != nil {
		return nil
	}
	c := &grid.Checkout{}
	if out, err := gitIn(dir, "rev-parse", "--verify", "--quiet", "HEAD"); err == nil {
		c.Commit = strings.TrimSpace(out)
	}
	if out, err := gitIn(dir, "symbolic-ref", "--short", "--quiet", "HEAD"); err == nil {
		c.Branch = strings.TrimSpace(out)
	}
	entries := strings.Split(strings.TrimSuffix(status, "\x00"), "\x00")
	for i := 0; i < len(entries); i++ {
		if len(entries[i]) < 4 {
			continue
		}
		what, file := entries[i][:2], entries[i][3:]
		c.Changed = append(c.Changed, strings.ToValidUTF8(strings.TrimSpace(what)+" "+file, "\uFFFD"))
		if strings.ContainsAny(what, "RC") {
			i++ // the name that it had
		}
	}
	return c
}

package projects

import (
	"context"
	"strings"
	"time"

	"mlfnode/grid"
)

// checkoutTime bounds the queries about a checkout; a folder that takes longer is very large, or on
// a disk that does not respond.
const checkoutTime = 5 * time.Second

// Checkout reports which commit a folder is at, and which of its files differ from it. It returns
// nil if git knows nothing about the folder (git refuses repositories of other users), or does not
// answer within checkoutTime.
func Checkout(ctx context.Context, dir string) *grid.Checkout {
	ctx, stop := context.WithTimeout(ctx, checkoutTime)
	defer stop()
	status, err := gitIn(ctx, dir, "status", "--porcelain", "-z", "--ignore-submodules=dirty", "--", ".")
	if err != nil {
		return nil
	}
	c := &grid.Checkout{}
	if out, err := gitIn(ctx, dir, "rev-parse", "--verify", "--quiet", "HEAD"); err == nil {
		c.Commit = strings.TrimSpace(out)
	}
	if out, err := gitIn(ctx, dir, "symbolic-ref", "--short", "--quiet", "HEAD"); err == nil {
		c.Branch = strings.TrimSpace(out)
	}
	if ctx.Err() != nil {
		return nil
	}
	entries := strings.Split(strings.TrimSuffix(status, "\x00"), "\x00")
	for i := 0; i < len(entries); i++ {
		if len(entries[i]) < 4 {
			continue
		}
		what, file := entries[i][:2], entries[i][3:]
		c.Changed = append(c.Changed, strings.ToValidUTF8(strings.TrimSpace(what)+" "+file, "\uFFFD"))
		if strings.ContainsAny(what, "RC") {
			i++ // skip the old name
		}
	}
	return c
}

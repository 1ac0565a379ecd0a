package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// printFailureGroups tells how many trials of a sweep failed in which class, with what helps and an example. Where all failures are the program's own and
// few enough to be listed, there is nothing to add.
func printFailureGroups(ctx context.Context, ui *console, c *api.Client, v *api.Sweep) error {
	if v.Failed == 0 {
		return nil
	}
	all, err := groupsOf(ctx, c, v.Sweep)
	if err != nil {
		return err
	}
	plain := func(g api.FailureGroup) bool { return g.Class == grid.ClassExit || g.Class == grid.ClassSignal }
	if v.Failed <= reasonsShown && !slices.ContainsFunc(all.Groups, func(g api.FailureGroup) bool { return !plain(g) }) {
		return nil
	}
	for _, g := range all.Groups {
		ui.say("%d × %s (%s), as %s; list them with: mlfnode trials %s --class %s", g.Count, g.Class, g.Cause, g.Trial, v.Sweep, g.Class)
		if g.Hint != "" {
			ui.say("  %s", sanitize([]byte(g.Hint)))
		}
	}
	if all.More {
		ui.say("(of the first %d failed trials)", all.Counted)
	}
	return nil
}

// groupsOf asks for the failures of a sweep. A node of an older version does not tell, nor does one tell of a sweep that was just removed.
func groupsOf(ctx context.Context, c *api.Client, id grid.SweepID) (api.Failures, error) {
	all, err := c.Failures(ctx, id)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return api.Failures{}, nil
	}
	return all, err
}

// checkClass says what is wrong with a failure class that a user names.
func checkClass(name string) error {
	var known []string
	for _, f := range grid.Failures() {
		if string(f.Class) == name {
			return nil
		}
		known = append(known, string(f.Class))
	}
	slices.Sort(known)
	return usage(fmt.Sprintf("%q is not a failure class", name), strings.Join(known, ", "))
}

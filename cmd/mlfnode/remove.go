package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/units"
	"mlfnode/node"
	"mlfnode/node/api"
)

// removeFlags are the flags of remove.
type removeFlags struct {
	older string
	yes   bool
}

func removeCommand(a *app) *cobra.Command {
	var f removeFlags
	c := &cobra.Command{
		Use: "remove SWEEP... | remove --older AGE", Short: "Remove sweeps for good, and free the space that they take",
		Long: `Remove sweeps for good: their results, output, artifacts and events, and their project's files
unless another sweep uses them. A running sweep is not removed; cancel it first. It asks on a
terminal; in a script, --yes agrees.`,
		Example: `  mlfnode remove chainer-1 chainer-2
  mlfnode remove --older 30d
  mlfnode remove last --yes`,
		RunE: func(c *cobra.Command, args []string) error {
			age, err := f.check(args)
			if err != nil {
				return err
			}
			return a.withSession(c.Context(), func(s *node.Session) error {
				return removeSweeps(c.Context(), a.console, s.Client(), args, age, f.yes)
			})
		},
	}
	c.Flags().StringVar(&f.older, "older", "",
		"all sweeps that ended, or were paused, longer ago than this, as in 30d or 36h")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return c
}

// check returns the age that --older gives, 0 without it.
func (f *removeFlags) check(args []string) (time.Duration, error) {
	switch {
	case f.older == "" && len(args) == 0:
		return 0, usage("remove needs a sweep, or an age", "mlfnode remove chainer-1, or: mlfnode remove --older 30d")
	case f.older == "":
		return 0, nil
	case len(args) > 0:
		return 0, usage("remove takes sweeps or --older, not both", "mlfnode remove --older "+f.older)
	}
	age, err := units.ParseDuration(f.older)
	if err != nil || age <= 0 {
		return 0, usage(fmt.Sprintf("--older %q is not an age", f.older), "write one such as 30d or 36h")
	}
	return age, nil
}

// removeSweeps removes the sweeps that the arguments name, or those that stopped running longer ago
// than age. It removes nothing if one of them can't be removed.
func removeSweeps(ctx context.Context, ui *console, c *api.Client, args []string, age time.Duration, yes bool) error {
	chosen, err := sweepsToRemove(ctx, c, args, age)
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		ui.say("no sweep is older than that")
		return nil
	}
	if !yes {
		if err := confirmRemoval(ctx, ui, chosen); err != nil {
			return err
		}
	}
	for _, v := range chosen {
		if err := c.Sweeps().Remove(ctx, v.Sweep); err != nil {
			return err
		}
		ui.say("removed %s", v.Sweep)
	}
	return nil
}

func sweepsToRemove(ctx context.Context, c *api.Client, args []string, age time.Duration) ([]api.Sweep, error) {
	if age > 0 {
		return sweepsOlderThan(ctx, c, age)
	}
	var chosen []api.Sweep
	seen := map[grid.SweepID]bool{}
	for _, arg := range args {
		id, err := parseTarget(arg)
		if err != nil {
			return nil, err
		}
		if id.Index >= 0 {
			return nil, usage("remove acts on a whole sweep", fmt.Sprintf("name it without the trial: %s", id.Sweep))
		}
		v, err := c.Sweeps().Get(ctx, id.Sweep)
		if err != nil {
			return nil, err
		}
		if v.State == grid.SweepRunning {
			return nil, failed(fmt.Sprintf("%s is running; only sweeps that have ended or are paused can be removed",
				v.Sweep),
				fmt.Sprintf("end it first with: mlfnode cancel %s", v.Sweep))
		}
		if !seen[v.Sweep] {
			seen[v.Sweep] = true
			chosen = append(chosen, v)
		}
	}
	return chosen, nil
}

// sweepsOlderThan lists the sweeps that ended or were paused longer ago than age, by the node's
// clock.
func sweepsOlderThan(ctx context.Context, c *api.Client, age time.Duration) ([]api.Sweep, error) {
	all, err := c.Sweeps().List(ctx)
	if err != nil {
		return nil, err
	}
	n, err := c.Node(ctx)
	if err != nil {
		return nil, err
	}
	var old []api.Sweep
	for _, v := range all {
		since := v.Ended
		if v.State == grid.SweepPaused {
			if since = v.Paused; since == nil {
				since = &v.Submitted // paused by an older version, which did not record when
			}
		}
		if v.State != grid.SweepRunning && since != nil && n.Time.Sub(*since) > age {
			old = append(old, v)
		}
	}
	return old, nil
}

// confirmRemoval asks for confirmation on the terminal.
func confirmRemoval(ctx context.Context, ui *console, chosen []api.Sweep) error {
	for _, v := range chosen {
		left := ""
		if open := v.Pending + v.Running; open > 0 {
			left = fmt.Sprintf(", %s never ran", plural(open, "trial"))
		}
		ui.say("%s %s: %d of %d succeeded%s, submitted %s", v.Sweep, v.State, v.Succeeded, v.Count, left,
			timeAgo(v.Submitted))
	}
	if !isTerminal(os.Stdin) || !isTerminal(ui.stderr) {
		return usage("this removes sweeps for good, and there is no terminal to confirm it on; nothing was removed",
			"run it again with --yes")
	}
	fmt.Fprintf(ui.stderr, "Remove %s for good? (yes/no) ", plural(int64(len(chosen)), "sweep"))
	line, err := answerOr(ctx, func() (string, error) { return readLine(os.Stdin) })
	if err == nil && !strings.EqualFold(strings.TrimSpace(line), "yes") {
		return failed("nothing was removed", "")
	}
	return err
}

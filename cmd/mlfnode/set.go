package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

func (a *app) setCommand() *cobra.Command {
	var priority, maxParallel int
	var c *cobra.Command
	c = onSweep("set SWEEP --priority N | --max-parallel N", "Change the priority of a sweep, or how many of its trials run at one time",
		"  mlfnode set chainer-1 --priority 5\n  mlfnode set last --max-parallel 2\n  mlfnode set last --max-parallel 0",
		func(ctx context.Context, id grid.TrialID) error {
			var q api.Set
			if c.Flags().Changed("priority") {
				q.Priority = &priority
			}
			if c.Flags().Changed("max-parallel") {
				q.MaxParallel = &maxParallel
			}
			if q == (api.Set{}) {
				return usage("set needs something to change", fmt.Sprintf("mlfnode set %s --priority 5", id.Sweep))
			}
			return a.set(ctx, id, q)
		})
	c.Long = c.Short + `.

Running trials go on; what starts next goes by the new values.`
	c.Flags().IntVar(&priority, "priority", 0, "sweeps with a higher priority go first")
	c.Flags().IntVar(&maxParallel, "max-parallel", 0, "most trials at one time; 0 is as many as fit")
	return c
}

func (a *app) set(ctx context.Context, id grid.TrialID, q api.Set) error {
	if id.Index >= 0 {
		return usage("set acts on a whole sweep", fmt.Sprintf("name it without the trial: %s", id.Sweep))
	}
	if err := q.Check(); err != nil {
		return asUsage(err)
	}
	return a.read(ctx, func(s *node.Session) error {
		if err := checkMaster(ctx, s.Client(), grid.OrderIndex, []grid.Feature{grid.FeatureSet}); err != nil {
			return err
		}
		done, err := s.Client().Set(ctx, id.Sweep, q)
		if err != nil {
			return err
		}
		most := "as many trials at one time as fit"
		if n := done.Sweep.MaxParallel; n > 0 {
			most = "at most " + plural(int64(n), "trial") + " at one time"
		}
		fmt.Fprintf(a.stdout, "%s: priority %d, %s\n", done.Sweep.Sweep, done.Sweep.Priority, most)
		return nil
	})
}

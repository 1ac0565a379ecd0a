package main

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
)

func extendCommand(a *app) *cobra.Command {
	var f followFlags
	var sets []string
	var sample string
	c := onSweep("extend SWEEP --set k=v | --sample N",
		"Add values to the axes of a sweep, or points to its sample, and run only the new points",
		`  mlfnode extend chainer-1 --set batchsize=200 --set epoch=20,25
  mlfnode extend train-2 --sample 50
  mlfnode extend train-2 --sample all`,
		func(ctx context.Context, id grid.TrialID) error {
			axes, err := parseSets(sets)
			if err != nil {
				return asUsage(err)
			}
			draw, err := parseSample(sample, len(axes) > 0)
			if err != nil {
				return err
			}
			if len(axes) == 0 && draw == 0 {
				return usage("extend needs values to add", fmt.Sprintf("mlfnode extend %s --set lr=0.3", id.Sweep))
			}
			return runAndFollow(ctx, a, id.Sweep, f, asSubmitted(a.console, "to run changed files, start a new sweep",
				func(c *api.Client, id grid.SweepID) (api.Done, error) {
					return uninterrupted(ctx, func(ctx context.Context) (api.Done, error) {
						return c.Sweeps().Extend(ctx, id, api.Extend{Axes: axes, Draw: draw})
					})
				}))
		})
	c.Flags().StringArrayVar(&sets, "set", nil, "values to add: k=v, k=a,b,c or k=start:end:step (repeatable)")
	c.Flags().StringVar(&sample, "sample", "", "draw `N` more points of a sample, or all that are left")
	f.add(c)
	return c
}

// parseSample parses how many points --sample adds.
func parseSample(text string, axes bool) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case text == "":
		return 0, nil
	case axes:
		return 0, usage("--sample adds points to a sample, and --set adds values to its axes",
			"use one at a time; --set needs a complete sample: --sample all")
	case text == "all":
		return math.MaxInt64, nil
	case err != nil || n < 1:
		return 0, usage(fmt.Sprintf("--sample takes a positive number or all, not %q", text),
			"mlfnode extend last --sample all")
	}
	return n, nil
}

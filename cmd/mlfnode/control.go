package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/projects"
)

// actOnSweep acts on a sweep and prints its new state.
func actOnSweep(
	ctx context.Context, a *app, id grid.TrialID, fn func(*api.Client, grid.SweepID) (api.Done, error),
) error {
	if id.Index >= 0 {
		return usage("this command acts on a whole sweep", fmt.Sprintf("name it without the trial: %s", id.Sweep))
	}
	return a.withSession(ctx, func(s *node.Session) error {
		done, err := fn(s.Client(), id.Sweep)
		if err != nil {
			return err
		}
		a.say("%s is %s", done.Sweep.Sweep, done.Sweep.State)
		return nil
	})
}

func pauseCommand(a *app) *cobra.Command {
	return onSweep("pause SWEEP", "Start no new trials; running ones finish, or save their state and stop (checkpoint)",
		"  mlfnode pause chainer-1",
		func(ctx context.Context, id grid.TrialID) error {
			return actOnSweep(ctx, a, id, func(c *api.Client, id grid.SweepID) (api.Done, error) {
				return c.Sweeps().Pause(ctx, id)
			})
		})
}

func resumeCommand(a *app) *cobra.Command {
	var f followFlags
	c := onSweep("resume SWEEP", "Continue a sweep that was paused or interrupted, or watch a running one",
		"  mlfnode resume chainer-1\n  mlfnode resume last",
		func(ctx context.Context, id grid.TrialID) error {
			if id.Index >= 0 {
				return usage("resume acts on a whole sweep",
					fmt.Sprintf("mlfnode resume %s, or: mlfnode retry %s", id.Sweep, id))
			}
			return runAndFollow(ctx, a, id.Sweep, f, func(c *api.Client, v api.Sweep) (api.Done, error) {
				return uninterrupted(ctx, func(ctx context.Context) (api.Done, error) {
					return c.Sweeps().Resume(ctx, v.Sweep)
				})
			})
		})
	c.Long = `Continue a sweep that was paused or interrupted, and watch it as sweep does.

A sweep that is running already is only watched: this brings back its output, progress and result
table after you have left it.`
	f.add(c)
	return c
}

func cancelCommand(a *app) *cobra.Command {
	var save bool
	c := onSweep("cancel SWEEP[/TRIAL]",
		"Cancel a sweep or one trial: stop what is running, and start nothing more of it",
		"  mlfnode cancel last\n  mlfnode cancel --save chainer-1\n  mlfnode cancel chainer-1/17",
		func(ctx context.Context, id grid.TrialID) error {
			if id.Index >= 0 {
				return cancelTrial(ctx, a, id, save)
			}
			return actOnSweep(ctx, a, id, func(c *api.Client, id grid.SweepID) (api.Done, error) {
				return c.Sweeps().Cancel(ctx, id, save)
			})
		})
	c.Flags().BoolVar(&save, "save", false,
		"let running trials save their state first, for a retry (tasks with a checkpoint)")
	return c
}

func cancelTrial(ctx context.Context, a *app, id grid.TrialID, save bool) error {
	if save {
		return usage("--save is for a whole sweep", fmt.Sprintf("mlfnode cancel %s", id))
	}
	return a.withSession(ctx, func(s *node.Session) error {
		if err := checkMaster(ctx, s.Client(), grid.OrderIndex, []grid.Feature{grid.FeatureCancel}); err != nil {
			return err
		}
		done, err := s.Client().Trials().Cancel(ctx, id)
		if err != nil {
			return err
		}
		id.Sweep = done.Sweep.Sweep // id may name it as the last one
		a.say("%s is cancelled; run it again with: mlfnode retry %[1]s", id)
		return nil
	})
}

func setCommand(a *app) *cobra.Command {
	var priority, maxParallel int
	var timeout string
	var c *cobra.Command
	c = onSweep("set SWEEP --priority N | --max-parallel N | --timeout T",
		"Change the priority of a sweep, how many of its trials run at a time, or their time limit",
		`  mlfnode set chainer-1 --priority 5
  mlfnode set last --max-parallel 2
  mlfnode set last --max-parallel 0
  mlfnode set last --timeout 8h`,
		func(ctx context.Context, id grid.TrialID) error {
			var q api.Set
			if c.Flags().Changed("priority") {
				q.Priority = &priority
			}
			if c.Flags().Changed("max-parallel") {
				q.MaxParallel = &maxParallel
			}
			if c.Flags().Changed("timeout") {
				limit, err := projects.ParseDuration(timeout)
				if err != nil {
					return usage("--timeout: "+err.Error(), "write it like 2h, 1h30m, 90s or 1d; 0 means no limit")
				}
				d := api.Duration(limit)
				q.Timeout = &d
			}
			if q == (api.Set{}) {
				return usage("set needs something to change", fmt.Sprintf("mlfnode set %s --priority 5", id.Sweep))
			}
			return setOnSweep(ctx, a, id, q)
		})
	c.Long = c.Short + `.

Running trials are not affected; the new values apply to those that start next.`
	c.Flags().IntVar(&priority, "priority", 0, "sweeps with a higher priority go first; from -1000000 to 1000000")
	c.Flags().IntVar(&maxParallel, "max-parallel", 0, "maximum number of trials at a time; 0 means as many as fit")
	c.Flags().StringVar(&timeout, "timeout", "", "time limit of one trial, as in 2h or 90s; 0 means no limit")
	return c
}

func setOnSweep(ctx context.Context, a *app, id grid.TrialID, q api.Set) error {
	if id.Index >= 0 {
		return usage("set acts on a whole sweep", fmt.Sprintf("name it without the trial: %s", id.Sweep))
	}
	if err := q.Check(); err != nil {
		return asUsage(err)
	}
	return a.withSession(ctx, func(s *node.Session) error {
		features := []grid.Feature{grid.FeatureSet}
		if q.Timeout != nil {
			features = append(features, grid.FeatureTimeout)
		}
		if err := checkMaster(ctx, s.Client(), grid.OrderIndex, features); err != nil {
			return err
		}
		done, err := s.Client().Sweeps().Set(ctx, id.Sweep, q)
		if err != nil {
			return err
		}
		most := "as many trials at a time as fit"
		if n := done.Sweep.MaxParallel; n > 0 {
			most = "at most " + plural(int64(n), "trial") + " at a time"
		}
		switch {
		case q.Timeout == nil:
		case *q.Timeout == 0:
			most += ", each for as long as it takes"
		default:
			most += ", each for at most " + time.Duration(*q.Timeout).String()
		}
		fmt.Fprintf(a.stdout, "%s: priority %d, %s\n", done.Sweep.Sweep, done.Sweep.Priority, most)
		return nil
	})
}

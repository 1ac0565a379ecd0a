package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/projects"
)

// followFlags say what is shown while a sweep runs.
type followFlags struct {
	detach   bool
	quiet    bool
	noOutput bool // of trials
	csv      string
	notify   string
	files    *projects.Files // in the bundle, for hints about those that are not
	adhoc    bool            // a program without a project, whose trials' files are discarded
}

func (f *followFlags) add(c *cobra.Command) {
	c.Flags().BoolVarP(&f.detach, "detach", "d", false, "return immediately; the sweep continues in the background")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "show no output of trials, no progress lines and no table")
	c.Flags().BoolVar(&f.noOutput, "no-output", false,
		"show progress and the table, not the output of trials; \"mlfnode logs\" has it")
	c.Flags().StringVar(&f.csv, "csv", "", "write the result table to this file at the end")
	c.Flags().StringVar(&f.notify, "notify", "",
		"shell `COMMAND` to run when the sweep ends, with $MLF_SWEEP, $MLF_SWEEP_STATE, $MLF_FAILED and others; "+
			"only if this command still runs then")
}

// check refuses flags that can't be combined.
func (f *followFlags) check() error {
	if f.detach && f.notify != "" {
		return usage("--notify runs a command at the end, and --detach does not wait for it",
			"leave --detach out, and put & after the whole line")
	}
	if f.detach && f.csv != "" {
		return usage("--csv writes the table at the end, and --detach does not wait for it",
			"mlfnode results last --csv="+f.csv+", when the sweep has ended")
	}
	return nil
}

// runAndFollow calls fn, which may make a sweep run, and follows the sweep as the command sweep
// does.
func runAndFollow(
	ctx context.Context, a *app, id grid.SweepID, f followFlags, fn func(*api.Client, api.Sweep) (api.Done, error),
) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := a.requireState(); err != nil {
		return err
	}
	var v api.Sweep
	var done api.Done
	s, err := a.openSession(ctx, f.detach, func(c *api.Client) (err error) {
		if v, err = c.Sweeps().Get(ctx, id); err == nil {
			done, err = fn(c, v)
		}
		return err
	})
	if err != nil {
		return err
	}
	if done.Sweep.State != grid.SweepRunning {
		defer s.Close()
		a.say("%s is %s; there is nothing left to run", v.Sweep, done.Sweep.State)
		runNotifyCommand(ctx, a.console, f.notify, &done.Sweep)
		return sweepExit(&done.Sweep)
	}
	if f.detach {
		defer s.Close()
		return printDetached(a.console, &done.Sweep)
	}
	if !f.quiet {
		a.say("%s: %d of %d trials left", v.Sweep, done.Sweep.Pending+done.Sweep.Running, done.Sweep.Count)
	}
	return followToEnd(ctx, a.console, newFollower(a, s, v.Sweep, &f, v.LogNext), f)
}

// followToEnd follows a sweep until it stops running, and prints its results.
func followToEnd(ctx context.Context, ui *console, f *follower, flags followFlags) error {
	defer f.close()
	v, err := f.run(ctx)
	switch {
	case errors.Is(err, errDetached):
		return &failure{code: exitInterrupted}
	case errors.Is(err, errUnrecorded):
		f.warnUnrecorded()
		return &failure{code: exitInterrupted}
	case f.interrupted():
		if err == nil || errors.Is(err, api.ErrLost) {
			ui.say("resume with: mlfnode resume %s", f.id)
		} else {
			ui.printError(err)
		}
		return &failure{code: exitInterrupted}
	}
	if err != nil {
		return err
	}
	var unranked *failure // the sweep has an objective, and no trial to name as the best
	err = f.buffered(ctx, func(ui *console) error {
		if err := printSummary(ctx, ui, f, v, flags); err != nil || v == nil || v.Succeeded == 0 {
			return err
		}
		err := checkObjective(ctx, f.session.Client(), v)
		if errors.As(err, &unranked) {
			return nil
		}
		return err
	})
	runNotifyCommand(ctx, ui, flags.notify, v)
	if err != nil {
		return err
	}
	if err := f.waitWhileHosting(ctx); err != nil {
		return err
	}
	if err := sweepExit(v); err != nil || unranked == nil {
		return err
	}
	return unranked
}

// sweepExit returns the exit code for a sweep that has stopped running.
func sweepExit(v *api.Sweep) error {
	if v == nil || v.Failed > 0 || v.OnlyCancelled() > 0 || v.Problem != "" && v.State == grid.SweepPaused {
		return &failure{code: exitFailed}
	}
	return nil
}

// printDetached prints the sweep, and how to follow it while it runs in the background.
func printDetached(ui *console, v *api.Sweep) error {
	fmt.Fprintln(ui.stdout, v.Sweep)
	run := "run"
	if v.Count == 1 {
		run = "runs"
	}
	ui.say("%s %s in the background; watch with: mlfnode resume %s, or follow the output with: mlfnode logs -f %[3]s",
		plural(v.Count, "trial"), run, v.Sweep)
	return nil
}

// runNotifyCommand runs the user's command in a shell after a sweep has stopped running. Its output
// goes to stderr; its failure says nothing about the sweep. It does not run after Ctrl-C.
func runNotifyCommand(ctx context.Context, ui *console, command string, v *api.Sweep) {
	if command == "" || v == nil || ctx.Err() != nil {
		return
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	c.Stdout, c.Stderr, c.Env = ui.stderr, ui.stderr, os.Environ()
	for name, value := range map[string]any{
		"SWEEP": v.Sweep, "SWEEP_STATE": v.State, "COUNT": v.Count, "SUCCEEDED": v.Succeeded, "FAILED": v.Failed,
		"CANCELLED": v.OnlyCancelled(), "STOPPED": v.Stopped,
	} {
		c.Env = append(c.Env, fmt.Sprintf("MLF_%s=%v", name, value))
	}
	if err := c.Run(); err != nil {
		ui.say("the command of --notify failed: %v", err)
	}
}

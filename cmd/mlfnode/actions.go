package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

// onSweep makes a command that takes one sweep.
func onSweep(use, short, example string, fn func(context.Context, grid.TrialID) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: oneArgument,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := target(args[0])
			if err != nil {
				return err
			}
			return fn(c.Context(), id)
		},
	}
}

// actOnSweep does something to a sweep and says what state it is in.
func actOnSweep(ctx context.Context, a *app, id grid.TrialID, fn func(*api.Client, grid.SweepID) (api.Done, error)) error {
	if id.Index >= 0 {
		return usage("this acts on a whole sweep", fmt.Sprintf("name it without the trial: %s", id.Sweep))
	}
	return a.read(ctx, func(s *node.Session) error {
		done, err := fn(s.Client(), id.Sweep)
		if err != nil {
			return err
		}
		a.say("%s is %s", done.Sweep.Sweep, done.Sweep.State)
		return nil
	})
}

func pauseCommand(a *app) *cobra.Command {
	return onSweep("pause SWEEP", "Start no new trials; running ones finish, or save their state and stop (checkpoint)", "  mlfnode pause chainer-1",
		func(ctx context.Context, id grid.TrialID) error {
			return actOnSweep(ctx, a, id, func(c *api.Client, id grid.SweepID) (api.Done, error) { return c.Pause(ctx, id) })
		})
}

func cancelCommand(a *app) *cobra.Command {
	var save bool
	c := onSweep("cancel SWEEP[/TRIAL]", "End a sweep, or one trial: stop what is running and start nothing more of it", "  mlfnode cancel last\n  mlfnode cancel --save chainer-1\n  mlfnode cancel chainer-1/17",
		func(ctx context.Context, id grid.TrialID) error {
			if id.Index >= 0 {
				return cancelTrial(ctx, a, id, save)
			}
			return actOnSweep(ctx, a, id, func(c *api.Client, id grid.SweepID) (api.Done, error) { return c.Cancel(ctx, id, save) })
		})
	c.Flags().BoolVar(&save, "save", false, "let running trials save their state first, for a retry (tasks with a checkpoint)")
	return c
}

func cancelTrial(ctx context.Context, a *app, id grid.TrialID, save bool) error {
	if save {
		return usage("--save is for a whole sweep", fmt.Sprintf("mlfnode cancel %s", id))
	}
	return a.read(ctx, func(s *node.Session) error {
		if err := checkMaster(ctx, s.Client(), grid.OrderIndex, []grid.Feature{grid.FeatureCancel}); err != nil {
			return err
		}
		done, err := s.Client().CancelTrial(ctx, id)
		if err != nil {
			return err
		}
		a.say("%s/%d is cancelled; run it again with: mlfnode retry %s/%d", done.Sweep.Sweep, id.Index, done.Sweep.Sweep, id.Index)
		return nil
	})
}

func resumeCommand(a *app) *cobra.Command {
	var f followFlags
	c := onSweep("resume SWEEP", "Continue a sweep that was paused or interrupted, or watch a running one", "  mlfnode resume chainer-1\n  mlfnode resume last",
		func(ctx context.Context, id grid.TrialID) error {
			if id.Index >= 0 {
				return usage("resume acts on a whole sweep", fmt.Sprintf("mlfnode resume %s, or: mlfnode retry %s", id.Sweep, id))
			}
			return runAndFollow(ctx, a, id.Sweep, f, func(c *api.Client, v api.Sweep) (api.Done, error) {
				return unbroken(ctx, func(ctx context.Context) (api.Done, error) { return c.Resume(ctx, v.Sweep) })
			})
		})
	c.Long = `Continue a sweep that was paused or interrupted, and watch it as sweep does.

A sweep that is running already is only watched: this brings back its output, progress and result table after you have left it.`
	f.add(c)
	return c
}

func retryCommand(a *app) *cobra.Command {
	var f followFlags
	var failedOnly, update bool
	var class string
	c := onSweep("retry SWEEP[/TRIAL]", "Run failed or cancelled trials again", "  mlfnode retry --failed chainer-1\n  mlfnode retry --failed --update chainer-1\n  mlfnode retry --class cuda_oom chainer-1\n  mlfnode retry chainer-1/17",
		func(ctx context.Context, id grid.TrialID) error {
			if class != "" {
				if err := checkClass(class); err != nil {
					return err
				}
			}
			q := api.Retry{Index: id.Index, FailedOnly: failedOnly || class != "", Class: grid.Class(class)}
			if update {
				return runAndFollow(ctx, a, id.Sweep, f, retryUpdated(ctx, a, q, f.quiet))
			}
			return runAndFollow(ctx, a, id.Sweep, f, asSubmitted(a.console, "--update packs them again", func(c *api.Client, id grid.SweepID) (api.Done, error) {
				return unbroken(ctx, func(ctx context.Context) (api.Done, error) { return c.Retry(ctx, id, q) })
			}))
		})
	c.Long = c.Short + `.

They run the files as submitted, whatever has changed in the folder since. With --update the project's folder is packed
again, and these trials run the files as they are now; run the command in that folder, or above it.`
	c.Flags().BoolVar(&update, "update", false, "run the files as they are now, not as they were submitted")
	c.Flags().StringVar(&class, "class", "", "only trials that failed in this `CLASS`, such as port or cuda_oom")
	c.Flags().BoolVar(&failedOnly, "failed", false, "only trials that failed")
	f.add(c)
	return c
}

func extendCommand(a *app) *cobra.Command {
	var f followFlags
	var sets []string
	var sample string
	c := onSweep("extend SWEEP --set k=v | --sample N", "Add values to the axes of a sweep, or points to its sample, and run only the new points",
		"  mlfnode extend chainer-1 --set batchsize=200 --set epoch=20,25\n  mlfnode extend train-2 --sample 50\n  mlfnode extend train-2 --sample all",
		func(ctx context.Context, id grid.TrialID) error {
			axes, err := parseSets(sets)
			if err != nil {
				return asUsage(err)
			}
			draw, err := drawn(sample, len(axes) > 0)
			if err != nil {
				return err
			}
			if len(axes) == 0 && draw == 0 {
				return usage("extend needs values to add", fmt.Sprintf("mlfnode extend %s --set lr=0.3", id.Sweep))
			}
			return runAndFollow(ctx, a, id.Sweep, f, asSubmitted(a.console, "to run changed files, start a new sweep", func(c *api.Client, id grid.SweepID) (api.Done, error) {
				return unbroken(ctx, func(ctx context.Context) (api.Done, error) {
					return c.Extend(ctx, id, api.Extend{Axes: axes, Draw: draw})
				})
			}))
		})
	c.Flags().StringArrayVar(&sets, "set", nil, "values to add: k=v, k=a,b,c or k=start:end:step (repeatable)")
	c.Flags().StringVar(&sample, "sample", "", "`N` further points of a sample, or all that are left")
	f.add(c)
	return c
}

// drawn reads how many points to add to a sample.
func drawn(text string, axes bool) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case text == "":
		return 0, nil
	case axes:
		return 0, usage("--sample adds points to a sample, and --set adds values to its axes", "use one at a time; --set needs a complete sample: --sample all")
	case text == "all":
		return math.MaxInt64, nil
	case err != nil || n < 1:
		return 0, usage(fmt.Sprintf("--sample takes a number from 1, or all, not %q", text), "mlfnode extend last --sample all")
	}
	return n, nil
}

// runAndFollow does something that may make a sweep run, and follows it as sweep does.
func runAndFollow(ctx context.Context, a *app, id grid.SweepID, f followFlags, fn func(*api.Client, api.Sweep) (api.Done, error)) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := a.knownState(); err != nil {
		return err
	}
	var v api.Sweep
	var done api.Done
	s, err := a.begin(ctx, f.detach, func(c *api.Client) (err error) {
		if v, err = c.Sweep(ctx, id); err == nil {
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
		return verdict(&done.Sweep)
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

// printDetached says how to go on with a sweep in the background.
func printDetached(ui *console, v *api.Sweep) error {
	fmt.Fprintln(ui.stdout, v.Sweep)
	run := "run"
	if v.Count == 1 {
		run = "runs"
	}
	ui.say("%s %s in the background; watch with: mlfnode resume %s, or follow the output with: mlfnode logs -f %[3]s", plural(v.Count, "trial"), run, v.Sweep)
	return nil
}

// hostCommand is what --detach starts: a node that stays until no sweep is left to run.
func hostCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "host", Hidden: true, Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.attach(c.Context(), true)
			if err != nil {
				return err
			}
			defer s.Close()
			return hostUntilIdle(c.Context(), s)
		},
	}
}

// patience is how long a node in the background waits for its first sweep.
const patience = 30 * time.Second

func hostUntilIdle(ctx context.Context, s *node.Session) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		all, err := s.Client().Sweeps(ctx)
		if err != nil {
			return err
		}
		for _, v := range all {
			if v.State == grid.SweepRunning {
				return s.Idle(ctx)
			}
		}
		<-tick.C
	}
	return nil
}

// background has a node running that does not end with this terminal.
func (c *connector) background(ctx context.Context) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	if node.Running(ctx, cfg) {
		return nil
	}
	if err := makeState(c.console, cfg.StateDir); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(cfg.StateDir, "node.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return failed(fmt.Sprintf("the node's log can't be written: %v", bare(err)), "")
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "host", "--state-dir", cfg.StateDir, "--config", c.config, "--local")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a node in the background: %w", err)
	}
	return c.awaitNode(ctx, cfg, cmd)
}

// awaitNode waits until the node in the background answers.
func (c *connector) awaitNode(ctx context.Context, cfg node.Config, cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			if node.Running(ctx, cfg) {
				return nil // another terminal was faster
			}
			return failed("the node in the background ended at once", "see why in "+filepath.Join(cfg.StateDir, "node.log"))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if node.Running(ctx, cfg) {
				return nil
			}
		}
	}
}

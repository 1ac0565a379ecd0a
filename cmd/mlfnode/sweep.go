package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/projects"
)

// sweepFlags are the flags of sweep.
type sweepFlags struct {
	planFlags
	followFlags
	dryRun      bool
	limit       int64
	name        string
	env         []string
	priority    int
	maxParallel int
}

// followFlags say what is shown while a sweep runs.
type followFlags struct {
	detach bool
	quiet  bool
	csv    string
	files  *projects.Files // that travelled, for hints about those that did not
}

func (f *followFlags) add(c *cobra.Command) {
	c.Flags().BoolVarP(&f.detach, "detach", "d", false, "return at once and go on in the background")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "show neither the output of trials nor progress lines")
	c.Flags().StringVar(&f.csv, "csv", "", "write the result table to this file at the end")
}

// check refuses what can't be done at one time.
func (f *followFlags) check() error {
	if f.detach && f.csv != "" {
		return usage("--csv writes the table at the end, and --detach does not wait for it", "mlfnode results last --csv="+f.csv+", when the sweep has ended")
	}
	return nil
}

func (a *app) sweepCommand() *cobra.Command {
	var f sweepFlags
	c := &cobra.Command{
		Use:   "sweep PROJECT [TASK] | sweep [--set k=v]... -- PROGRAM [ARG]...",
		Short: "Run a task of a project, or any program, over a grid of parameters",
		Long: `Run a task of a project, or any program, over a grid of parameters.

PROJECT is a folder, or the name of one under ./projects or of an example (chainer, bowcnn).
With a program behind --, the folder you are in travels to the trials; each trial gets a copy. What .gitignore and .mlfignore
files name stays here; include and share in project.yaml say otherwise.
--set takes one value, a list or an interval: k=v, k=a,b,c, k=start:end:step (the end is left out).
Brackets and quotes keep commas together: k=(3,3),(5,5), k='"a,b",c'. A list or formula is as in parameters.yml:
k=[0.1,0.2], k='{logspace: [-4,-1,4]}'; for a text that looks like one, quote it: k='"[64,128]","[32]"'.
Every parameter is appended to the command as --key=value, unless the command names it: {key} is replaced by the value.
Ctrl-C pauses the sweep; "mlfnode resume" goes on with it. In a cluster the sweep goes on without this command, also when its
terminal is closed; "mlfnode logs -f" follows it, "mlfnode pause" and "mlfnode cancel" stop it.`,
		Example: `  mlfnode sweep chainer
  mlfnode sweep chainer echo
  mlfnode sweep chainer --set batchsize=50,100 --set epoch=5:20:5 --dry-run
  mlfnode sweep --set lr=0.1,0.01 -- python3 -u train.py
  mlfnode sweep --set lr=0.1,0.01 -- python3 -u train.py optimizer.lr={lr}`,
		RunE: func(c *cobra.Command, args []string) error {
			args, command, err := splitArgs(c, args)
			if err != nil {
				return err
			}
			fl := c.Flags()
			switch f.timeoutGiven = fl.Changed("timeout"); {
			case f.timeout < 0 || fl.Changed("retries") && f.retries < 0:
				return usage("--timeout and --retries take nothing below 0", "--timeout 0 is no limit, --retries 0 runs each trial once")
			case a.json && !f.dryRun:
				return usage("--json goes with --dry-run", "mlfnode results last --json shows what came of a sweep")
			case fl.Changed("limit") && !f.dryRun:
				return usage("--limit goes with --dry-run", "--max-parallel bounds how many trials run at one time")
			}
			return a.sweep(c.Context(), args, command, &f)
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.sets, "set", nil, "values of a parameter: k=v, k=a,b,c or k=start:end:step (repeatable)")
	fl.StringVar(&f.parameters, "parameters", "", "parameter file to use instead of the task's")
	fl.DurationVar(&f.timeout, "timeout", 0, "longest run of one trial, as in 2h or 90s")
	fl.IntVar(&f.retries, "retries", -1, "how often a failed trial runs again (default as the task says)")
	hideDefault(fl, "retries")
	fl.BoolVar(&f.dryRun, "dry-run", false, "show how many trials there are and the first commands, and run nothing")
	fl.Int64Var(&f.limit, "limit", dryLimit, "how many commands --dry-run shows")
	fl.StringVar(&f.name, "name", "", "a name of your own for the sweep")
	fl.IntVar(&f.priority, "priority", 0, "sweeps with a higher priority go first")
	fl.StringVar(&f.order, "order", "", "order in which trials begin: index or spread (default: the order of the task)")
	fl.IntVar(&f.maxParallel, "max-parallel", 0, "most trials at one time; 0 is as many as fit")
	fl.StringArrayVar(&f.env, "env", nil, "NAME or NAME=VALUE to add to the environment of trials (repeatable)")
	f.followFlags.add(c)
	a.jsonFlag(c)
	return c
}

// splitArgs tells PROJECT [TASK] from the command behind the dashes.
func splitArgs(c *cobra.Command, args []string) (project, command []string, err error) {
	dash := c.ArgsLenAtDash()
	if dash >= 0 {
		project, command = args[:dash], args[dash:]
	} else {
		project = args
	}
	switch {
	case len(project) == 0 && len(command) == 0:
		return nil, nil, usage("sweep needs a project, or a program behind --", "mlfnode sweep chainer, or: mlfnode sweep --set lr=0.1,0.01 -- python3 train.py")
	case len(project) > 0 && len(command) > 0:
		return nil, nil, usage("sweep takes a project or a program behind --, not both", "mlfnode sweep --help")
	case len(project) > 2:
		return nil, nil, usage(fmt.Sprintf("sweep takes a project and a task, not %d arguments", len(project)), "put a program and its arguments behind --")
	}
	return project, command, nil
}

func (a *app) sweep(ctx context.Context, args, command []string, f *sweepFlags) error {
	if f.maxParallel < 0 || f.limit < 0 {
		return usage("--max-parallel and --limit take numbers from 0", "leave it out for no limit")
	}
	if err := f.followFlags.check(); err != nil {
		return err
	}
	p, err := a.load(args, command, &f.planFlags)
	if err != nil {
		return err
	}
	if err := grid.CheckSweepName(p.project.Name, f.name); err != nil {
		return asUsage(err)
	}
	if f.dryRun {
		if !f.quiet && !a.json {
			a.sayPacked(p)
		}
		return a.dryRun(p, f.limit)
	}
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	local, err := a.standsAlone(&cfg)
	if err != nil {
		return err
	}
	added, err := f.addedEnviron()
	if err != nil {
		return err
	}
	var environ []string // in a cluster that of each node
	if local {
		environ = os.Environ()
		if err := p.checkProgram(added); err != nil {
			return err
		}
		if err := p.checkFits(ctx, cfg); err != nil {
			return err
		}
	}
	bundle, err := a.pack(ctx, p, f.quiet)
	if err != nil {
		return err
	}
	defer bundle.remove()
	sub := api.Submit{
		Token: rand.Text(), Project: p.project.Name, Name: f.name, Task: p.task, Bundle: bundle.digest, Space: p.space,
		Priority: f.priority, MaxParallel: f.maxParallel, Environ: environ, EnvironAdded: added,
	}
	var v api.Sweep
	s, err := a.begin(ctx, f.detach, func(c *api.Client) (err error) {
		if err := checkOrder(ctx, c, p.task.Order); err != nil {
			return err
		}
		v, err = submit(ctx, c, bundle, sub)
		return err
	})
	if err != nil {
		return err
	}
	if f.detach {
		defer s.Close()
		return a.detached(&v)
	}
	if !f.quiet {
		a.say("%s: %s", v.Sweep, plural(v.Count, "trial"))
	}
	f.files = p.files
	return a.finish(ctx, a.follower(s, v.Sweep, f.quiet, 0), f.followFlags)
}

// checkOrder refuses an order that the master does not know: one of an older version would run trials by index without a word.
func checkOrder(ctx context.Context, c *api.Client, order grid.Order) error {
	if order == grid.OrderIndex {
		return nil
	}
	n, err := c.Node(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(n.Orders, order) {
		return fmt.Errorf("the master runs mlfnode %s, which starts trials by index only\n  try: --order index, or bring the master up to date", n.Version)
	}
	return nil
}

// addedEnviron is what --env adds to the environment that trials have without it: on one machine that of this shell, in a
// cluster that of each node's agent.
func (f *sweepFlags) addedEnviron() ([]string, error) {
	var env []string
	for _, kv := range f.env {
		name, _, given := strings.Cut(kv, "=")
		value, known := os.LookupEnv(name)
		switch {
		case name == "":
			return nil, usage(fmt.Sprintf("--env %q names no variable", kv), "--env NAME or --env NAME=VALUE")
		case !given && !known:
			return nil, usage(fmt.Sprintf("there is no variable %s in your environment", name), "give its value: --env "+name+"=VALUE")
		case !given:
			kv = name + "=" + value
		}
		env = append(env, kv)
	}
	return env, nil
}

// submit stores the bundle if the node does not have it, then the sweep. It may run twice: the token tells the node which
// sweep it has already.
func submit(ctx context.Context, c *api.Client, b *bundle, sub api.Submit) (api.Sweep, error) {
	if b.digest != "" {
		ok, err := c.HasBundle(ctx, b.digest)
		if err != nil {
			return api.Sweep{}, err
		}
		if !ok {
			if err := b.put(ctx, c); err != nil {
				return api.Sweep{}, err
			}
		}
	}
	v, err := c.Submit(ctx, sub)
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) && refusal.Code == api.CodeNoBundle && b.digest != "" {
		// It went with the last sweep that used it, a moment ago.
		if err := b.put(ctx, c); err != nil {
			return api.Sweep{}, err
		}
		v, err = c.Submit(ctx, sub)
	}
	return v, err
}

// bundle is a packed project in a temporary file; without a digest there is none.
type bundle struct {
	digest string
	file   *os.File
}

// packFailed is about the temporary file, not about the project.
func packFailed(err error) error {
	return failed(fmt.Sprintf("the project can't be packed: %v", bare(err)), fmt.Sprintf("make room in %s, or set TMPDIR to another folder", os.TempDir()))
}

func (b *bundle) put(ctx context.Context, c *api.Client) error {
	if _, err := b.file.Seek(0, 0); err != nil {
		return fmt.Errorf("read packed project: %w", err)
	}
	return c.PutBundle(ctx, b.digest, b.file)
}

func (b *bundle) remove() {
	if b.file != nil {
		b.file.Close()
		os.Remove(b.file.Name())
	}
}

// finish follows a sweep to its end and prints what came of it.
func (a *app) finish(ctx context.Context, f *follower, flags followFlags) error {
	defer f.close()
	v, err := f.run(ctx)
	switch {
	case errors.Is(err, errDetached):
		return &failure{code: exitInterrupted}
	case errors.Is(err, errUnrecorded):
		f.unstored()
		return &failure{code: exitInterrupted}
	case f.interrupted():
		if err == nil || errors.Is(err, api.ErrLost) {
			a.say("resume with: mlfnode resume %s", f.id)
		}
		return &failure{code: exitInterrupted}
	}
	if err != nil {
		return err
	}
	var unranked *failure // the sweep was to find its best trial, and can't tell
	err = f.whole(ctx, func(a *app) error {
		if err := a.conclude(ctx, f, v, flags); err != nil || v == nil || v.Succeeded == 0 {
			return err
		}
		err := a.knowsObjective(ctx, f.session.Client(), v)
		if errors.As(err, &unranked) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := f.hosting(ctx); err != nil {
		return err
	}
	if err := verdict(v); err != nil || unranked == nil {
		return err
	}
	return unranked
}

// verdict is the exit code that a sweep at rest deserves.
func verdict(v *api.Sweep) error {
	if v == nil || v.Failed > 0 || v.Cancelled > 0 || v.Problem != "" && v.State == grid.SweepPaused {
		return &failure{code: exitFailed}
	}
	return nil
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// sweepFlags are the flags of sweep.
type sweepFlags struct {
	planFlags
	followFlags
	dryRun      bool
	limit       int64
	name        string
	save        string
	env         []string
	priority    int
	maxParallel int
}

func sweepCommand(a *app) *cobra.Command {
	var f sweepFlags
	c := &cobra.Command{
		Use:   "sweep PROJECT [TASK] | sweep [--set k=v]... -- PROGRAM [ARG]...",
		Short: "Run a task of a project, or any program, over a grid of parameters",
		Long: `Run a task of a project, or any program, over a grid of parameters.

PROJECT is a folder, the name of one under ./projects, the name that project.yaml in the current
folder gives, or an example (chainer, bowcnn).
With a program after --, the folder you are in travels to the trials; each trial gets a copy. Files
that .gitignore or .mlfignore names stay here, unless include or share in project.yaml names them.
The last JSON object that the program prints is its metrics, unless --metric says where they are.
--set takes one value, a list or an interval: k=v, k=a,b,c, k=start:end:step (the end is left out).
Brackets and quotes keep commas together: k=(3,3),(5,5), k='"a,b",c'. A list or formula is as in
parameters.yml: k=[0.1,0.2], k='{logspace: [-4,-1,4]}', lists of arguments k=[[64,128],[32]],
parameters that go together zip='{lr: [0.1, 0.01], batch: [32, 64]}'; for a text that looks like
one, quote it: k='"[64,128]","[32]"'. --parameters also takes points from a CSV or JSON-lines file.
Every parameter is appended to the command as --key=value, unless the command names it: {key} is
replaced by the value.
Ctrl-C pauses the sweep, and "mlfnode resume" continues it. In a cluster the sweep continues without
this command, even when its terminal is closed: "mlfnode resume" watches it again, "mlfnode logs -f"
follows its output, "mlfnode pause" and "mlfnode cancel" stop it.`,
		Example: `  mlfnode sweep chainer
  mlfnode sweep chainer echo
  mlfnode sweep chainer --set batchsize=50,100 --set epoch=5:20:5 --dry-run
  mlfnode sweep chainer --parameters points.csv --repeat 3
  mlfnode sweep --set lr=0.1,0.01 -- python3 -u train.py
  mlfnode sweep --set lr=0.1,0.01 -- python3 -u train.py optimizer.lr={lr}
  mlfnode sweep --set lr=0.1,0.01 --artifact 'out/**' --save digits -- python3 -u train.py
  mlfnode sweep --set lr=0.1,0.01 --metric 'regex:loss=(?P<loss>\S+)' --objective loss:min -- python3 -u train.py`,
		RunE: func(c *cobra.Command, args []string) error {
			args, command, err := splitArgs(c, args)
			if err != nil {
				return err
			}
			fl := c.Flags()
			switch {
			case a.json && !f.dryRun:
				return usage("--json needs --dry-run", "mlfnode results last --json shows the results of a sweep")
			case fl.Changed("limit") && !f.dryRun:
				return usage("--limit needs --dry-run", "--max-parallel bounds how many trials run at a time")
			}
			return runSweep(c.Context(), a, args, command, &f)
		},
	}
	fl := c.Flags()
	f.planFlags.add(fl)
	fl.BoolVar(&f.dryRun, "dry-run", false, "show the number of trials and the first commands; run nothing")
	fl.Int64Var(&f.limit, "limit", dryLimit, "how many commands --dry-run shows")
	fl.StringVar(&f.save, "save", "", "write a project.yaml of this `NAME` that does the same; run nothing")
	fl.StringVar(&f.name, "name", "", "a name for the sweep")
	fl.IntVar(&f.priority, "priority", 0, "sweeps with a higher priority go first; from -1000000 to 1000000")
	fl.IntVar(&f.maxParallel, "max-parallel", 0, "maximum number of trials at a time; 0 means as many as fit")
	fl.StringArrayVar(&f.env, "env", nil, "NAME or NAME=VALUE to add to the environment of trials (repeatable)")
	f.followFlags.add(c)
	a.jsonFlag(c)
	return c
}

// splitArgs splits the arguments into PROJECT [TASK] and the command after the dashes.
func splitArgs(c *cobra.Command, args []string) (project, command []string, err error) {
	dash := c.ArgsLenAtDash()
	if dash >= 0 {
		project, command = args[:dash], args[dash:]
	} else {
		project = args
	}
	switch {
	case len(project) == 0 && len(command) == 0:
		return nil, nil, usage("sweep needs a project, or a program after --",
			"mlfnode sweep chainer, or: mlfnode sweep --set lr=0.1,0.01 -- python3 train.py")
	case len(project) > 0 && len(command) > 0:
		return nil, nil, usage("sweep takes a project or a program after --, not both", "mlfnode sweep --help")
	case len(project) > 2 && dash < 0 && missingDashes(project) != nil:
		return nil, nil, missingDashes(project)
	case len(project) > 2:
		return nil, nil, usage(fmt.Sprintf("sweep takes a project and a task, not %d arguments", len(project)),
			"put a program and its arguments after --")
	}
	return project, command, nil
}

// saveProject writes the command with its parameters and settings as a project.
func saveProject(ui *console, p *plan, f *sweepFlags) error {
	env := map[string]string{}
	for _, kv := range f.env {
		name, value, given := strings.Cut(kv, "=")
		if !given {
			ui.say("note: --env %s takes the value from the environment, so it is not saved", name)
			continue
		}
		env[name] = value
	}
	if f.name != "" || f.priority != 0 || f.maxParallel != 0 {
		ui.say("note: --name, --priority and --max-parallel apply to a single sweep and are not saved")
	}
	files, err := p.project.Save(f.save, p.axes, env)
	if err != nil {
		return asUsage(err)
	}
	for _, name := range files {
		fmt.Fprintln(ui.stdout, name)
	}
	ui.say("run it with: mlfnode sweep %s", f.save)
	return nil
}

// missingDashes returns an error if the arguments are a program with its arguments, or values that
// a shell has split, and nil otherwise.
func missingDashes(args []string) error {
	if len(args) == 0 {
		return nil // the command is after the dashes
	}
	info, err := os.Stat(args[0])
	if err == nil && info.IsDir() {
		return nil
	}
	if key, value, found := strings.Cut(args[0], "="); found && key != "" {
		return usage(fmt.Sprintf("%s is not a project; it looks like a value of --set", args[0]),
			fmt.Sprintf(
				"all values of a parameter in one --set, joined by commas: --set %s=%s,… (a shell splits %s={…})", key,
				value, key))
	}
	file := err == nil && info.Mode().IsRegular()
	if _, err := exec.LookPath(args[0]); (err != nil && !file) || len(args) == 1 {
		return nil
	}
	command := strings.Join(args, " ")
	if file && info.Mode()&0o111 == 0 && strings.HasSuffix(args[0], ".py") {
		command = "python3 " + command
	}
	return usage(fmt.Sprintf("%s is a program, not a project: put -- before it", args[0]),
		"mlfnode sweep --set lr=0.1,0.01 -- "+command)
}

func runSweep(ctx context.Context, a *app, args, command []string, f *sweepFlags) error {
	if f.maxParallel < 0 || f.limit < 0 {
		return usage("--max-parallel and --limit must not be negative", "leave it out for no limit")
	}
	if err := f.followFlags.check(); err != nil {
		return err
	}
	p, err := loadPlan(a, args, command, &f.planFlags)
	if err != nil {
		return err
	}
	if err := grid.CheckSweepName(p.project.Name, f.name); err != nil {
		return asUsage(err)
	}
	if f.save != "" {
		return saveProject(a.console, p, f)
	}
	if f.dryRun {
		if !f.quiet && !a.json {
			printPacked(a.console, p)
		}
		return printDryRun(a.console, p, f.limit)
	}
	if !f.detach {
		a.useTrialNode(f.quiet)
	}
	d, err := a.destination()
	if err != nil {
		return err
	}
	added, err := f.addedEnviron()
	if err != nil {
		return err
	}
	var environ []string // in a cluster, trials have that of each node
	if d.alone() {
		environ = os.Environ()
		if err := p.checkProgram(added); err != nil {
			return err
		}
		if err := p.checkFits(ctx, &d.cfg); err != nil {
			return err
		}
	}
	bundle, err := packBundle(ctx, a.console, p, f.quiet)
	if err != nil {
		return err
	}
	defer bundle.remove()
	sub := api.Submit{
		Token: rand.Text(), Project: p.project.Name, Name: f.name, Origin: submissionOrigin(ctx, a, p.project),
		Task: p.task, Bundle: bundle.digest, Space: p.space,
		Priority: f.priority, MaxParallel: f.maxParallel, Environ: environ, EnvironAdded: added,
	}
	var v api.Sweep
	s, err := a.openSession(ctx, f.detach, func(c *api.Client) (err error) {
		if err := checkMaster(ctx, c, p.task.Order, grid.FeaturesOf(&p.task, p.space)); err != nil {
			return err
		}
		// The token tells the node whether it has this sweep already.
		v, err = withBundle(ctx, c, bundle, func(ctx context.Context) (api.Sweep, error) {
			return c.Sweeps().Submit(ctx, sub)
		})
		return err
	})
	if err != nil {
		return err
	}
	noteSameName(ctx, a.console, s.Client(), &v)
	if f.detach {
		defer s.Close()
		return printDetached(a.console, &v)
	}
	if !f.quiet {
		a.say("%s: %s", v.Sweep, plural(v.Count, "trial"))
	}
	f.files, f.adhoc = p.files, len(command) > 0 && len(p.task.Artifacts) == 0
	return followToEnd(ctx, a.console, newFollower(a, s, v.Sweep, &f.followFlags, 0), f.followFlags)
}

// checkMaster refuses what the master does not know: an older master would silently run trials by
// index, or run other ones.
func checkMaster(ctx context.Context, c *api.Client, order grid.Order, features []grid.Feature) error {
	if order == grid.OrderIndex && len(features) == 0 {
		return nil
	}
	n, err := c.Node(ctx)
	if err != nil {
		return err
	}
	for _, f := range features {
		if !slices.Contains(n.Features, f) {
			return failed(fmt.Sprintf("the master runs mlfnode %s, which does not support %s", n.Version,
				featureNames()[f]),
				"upgrade the master")
		}
	}
	if order != grid.OrderIndex && !slices.Contains(n.Orders, order) {
		return fmt.Errorf("the master runs mlfnode %s, which does not support order %s\n"+
			"  try: --order index, or upgrade the master", n.Version, order)
	}
	return nil
}

func featureNames() map[grid.Feature]string {
	return map[grid.Feature]string{
		grid.FeatureLists:  "values that are lists of arguments",
		grid.FeatureZip:    "parameters that go together (zip, CSV and JSON lines)",
		grid.FeatureSample: "samples of a grid", grid.FeatureRepeat: "repeat", grid.FeatureVenv: "venv",
		grid.FeatureSet:  "set",
		grid.FeatureStop: "stop_after", grid.FeatureEarly: "stop", grid.FeatureNodes: "nodes",
		grid.FeatureTimeout: "set --timeout", grid.FeatureCancel: "how to cancel one trial",
	}
}

// addedEnviron returns what --env adds to the environment of trials, which without it is that of
// this shell on one machine, and that of each node's agent in a cluster.
func (f *sweepFlags) addedEnviron() ([]string, error) {
	var env []string
	for _, kv := range f.env {
		name, _, given := strings.Cut(kv, "=")
		value, known := os.LookupEnv(name)
		switch {
		case name == "":
			return nil, usage(fmt.Sprintf("--env %q names no variable", kv), "--env NAME or --env NAME=VALUE")
		case !given && !known:
			return nil, usage(fmt.Sprintf("there is no variable %s in your environment", name),
				"give its value: --env "+name+"=VALUE")
		case !given:
			kv = name + "=" + value
		}
		env = append(env, kv)
	}
	return env, nil
}

// noteSameName warns if other sweeps have the name of this one.
func noteSameName(ctx context.Context, ui *console, c *api.Client, v *api.Sweep) {
	if v.Name == "" {
		return
	}
	_, err := c.Sweeps().Get(ctx, grid.SweepID(v.Name))
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
		ui.say("note: %s; commands refuse the name, so name this one by its id: %s", refusal.Msg, v.Sweep)
	}
}

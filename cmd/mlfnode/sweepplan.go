package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/config"
	"mlfnode/projects"
)

// plan is everything about a sweep that is known before it is submitted.
type plan struct {
	project *projects.Project
	task    grid.Task
	axes    []space.Axis // of the space, without the repeat axis
	space   space.Space
	files   *projects.Files // of the bundle; nil if there is none
}

// planFlags are the flags that change what is run.
type planFlags struct {
	sets       []string
	parameters string
	settings   []projects.Setting // in the order of the command line
}

// add defines the flags that set fields of a task as project.yaml does.
func (f *planFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.sets, "set", nil,
		"values of a parameter: k=v, k=a,b,c, k=start:end:step or what parameters.yml takes (repeatable)")
	fl.StringVar(&f.parameters, "parameters", "", "parameters.yml, CSV or JSON-lines file to use instead of the task's")
	for _, s := range [][3]string{
		{"repeat", "N", "run each point N times; {repeat} and $MLF_REPEAT are 0 to N-1"},
		{"sample", "N[:SEED]", "run only N points, drawn at random; \"mlfnode extend\" draws more"},
		{"exclude", "CONDITION", "combinations to leave out, as in 'lr > 0.1 and depth == 2' (repeatable)"},
		{"setup", "LINE", "shell command that runs before the trials, once per node and version of the folder"},
		{"venv", "FILE",
			"requirements.txt of a virtual environment that trials run in, made once per node and version of the file"},
		{"share", "PATTERN", "read-only files that trials see in place instead of copying (repeatable)"},
		{"artifact", "PATTERN", "files to keep from each trial, as in 'result/**' (repeatable)"},
		{"metric", "SOURCE", "where to read metrics: log:FILE, regex:EXPRESSION or json:stdout (repeatable)"},
		{"objective", "METRIC:GOAL", "what --best sorts by, as in loss:min or accuracy:max"},
		{"timeout", "DURATION", "time limit of one trial, as in 2h or 90s; 0 means no limit"},
		{"retries", "N", "how many times a failed trial is retried (default as the task says)"},
		{"stop", "RULE:STEP",
			"stop trials early whose objective is worse than that of others from this step on: median:5 or asha:5"},
		{"stop-after", "N", "pause the sweep when N trials have failed; 0 means no limit"},
		{"nodes", "NAME,…", "nodes that may run the trials: names, which may have *, and label=LABEL of node.yaml"},
		{"order", "ORDER",
			"order in which trials begin: index, spread or longest_first (default: the order of the task)"},
		{"cpus", "N", "processors that one trial needs"},
		{"memory", "SIZE", "memory that one trial needs, as in 4GiB"},
		{"gpus", "N", "GPUs that one trial needs; 0.5 shares one"},
	} {
		fl.Var(&settingFlag{f, s[0], s[1]}, s[0], s[2])
	}
}

// settingFlag is a flag that sets a field of the task.
type settingFlag struct {
	plan         *planFlags
	name, values string
}

func (f *settingFlag) String() string { return "" }

func (f *settingFlag) Type() string { return f.values }

func (f *settingFlag) Set(text string) error {
	f.plan.settings = append(f.plan.settings, projects.Setting{Flag: f.name, Text: text})
	return nil
}

// loadPlan finds the project and checks all of it. It stores nothing.
func loadPlan(a *app, args, command []string, f *planFlags) (*plan, error) {
	project, err := findProject(a, args, command)
	if err != nil {
		if missing := missingDashes(args); missing != nil {
			return nil, missing
		}
		return nil, asUsage(err)
	}
	name := ""
	if len(args) > 1 {
		name = args[1]
	}
	if err := project.Apply(name, f.settings); err != nil {
		return nil, asUsage(err)
	}
	def, err := project.Task(name)
	if err != nil {
		return nil, asUsage(err)
	}
	axes, err := f.axes(def.Axes)
	if err != nil {
		return nil, asUsage(err)
	}
	for _, set := range f.sets {
		if space.LooksLikeTime(set) {
			key, value, _ := strings.Cut(set, "=")
			a.say("note: --set %s is an interval of numbers, from %s; for the text write %s='\"%s\"'", set,
				strings.Replace(value, ":", " up to ", 1), key, value)
		}
	}
	points, err := def.Space(axes)
	if err != nil {
		return nil, asUsage(err)
	}
	p := &plan{project: project, task: def.Task, axes: axes, space: points}
	if err := listFiles(a, p, def.Include); err != nil {
		return nil, err
	}
	if project.Bundled {
		if err := checkRules(project.Dir); err != nil {
			return nil, err
		}
	}
	// The master checks this again.
	if err := errors.Join(p.task.Check(), p.task.Template().Check(points.Keys())); err != nil {
		return nil, asUsage(err)
	}
	return p, p.checkCommand()
}

func findProject(a *app, args, command []string) (*projects.Project, error) {
	if len(command) > 0 {
		cwd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("find the current folder: %w", err)
		}
		return projects.Adhoc(command, cwd)
	}
	cfg, err := a.settings()
	if err != nil {
		return nil, err
	}
	return projects.Find(args[0], filepath.Join(cfg.StateDir, "examples"))
}

func (f *planFlags) axes(axes []space.Axis) ([]space.Axis, error) {
	if f.parameters != "" {
		data, err := os.ReadFile(f.parameters)
		if err != nil {
			return nil, fmt.Errorf("the parameter file %s can't be read: %w\n  try: a path from the folder you are in",
				f.parameters, problem.WithoutPath(err))
		}
		if axes, err = space.ParseParameters(f.parameters, data); err != nil {
			return nil, err
		}
	}
	sets, err := parseSets(f.sets)
	if err != nil {
		return nil, err
	}
	return space.MergeSets(axes, sets)
}

// checkCommand checks whether a program in the project's folder exists; a setup step may still
// create it. Programs from elsewhere are checked on the machine that runs the trials, see
// checkProgram.
func (p *plan) checkCommand() error {
	name, ok := p.program()
	if !ok || !strings.Contains(name, "/") || filepath.IsAbs(name) {
		return nil
	}
	if err := checkFile(name, filepath.Join(p.project.Dir, name)); err != nil {
		return err
	}
	return p.checkTravels(name)
}

// checkProgram checks whether this machine, which will run the trials, has the program.
func (p *plan) checkProgram(added []string) error {
	name, ok := p.program()
	switch {
	case !ok:
		return nil
	case filepath.IsAbs(name):
		return checkFile(name, name)
	case strings.Contains(name, "/"):
		return nil
	case slices.ContainsFunc(added, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }):
		return nil
	}
	if _, err := exec.LookPath(name); err != nil {
		return usage(fmt.Sprintf("%q is not found in PATH", name), "check the name, or give the program's path")
	}
	return nil
}

// program returns the name of the program that each trial runs; ok is false if it is not known
// before the trial runs.
func (p *plan) program() (name string, ok bool) {
	if len(p.task.Command) == 0 || len(p.task.Setup) > 0 || p.task.Image != "" {
		return "", false
	}
	name = p.task.Command[0]
	return name, !strings.ContainsAny(name, "{}") && p.task.Env["PATH"] == ""
}

// checkFile refuses a path that can't be executed.
func checkFile(name, path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return usage(fmt.Sprintf("there is no program %s", name),
			"check the path; a relative one is resolved from the project's folder")
	case info.IsDir():
		return usage(fmt.Sprintf("%s is a folder, not a program", name), "name a program in it")
	case info.Mode()&0o111 == 0:
		return usage(fmt.Sprintf("%s is not executable", name), "chmod +x it, or run it with its interpreter")
	}
	return nil
}

// checkFits refuses a task that this machine can never run.
func (p *plan) checkFits(ctx context.Context, cfg *config.Config) error {
	r := p.task.Resources
	if !r.Nodes.Has(cfg.Node, cfg.Labels) {
		return usage(
			fmt.Sprintf("this machine, %s, is not one of the nodes that the task names: %s", cfg.Node, r.Nodes),
			"leave nodes out on a machine that is not in a cluster")
	}
	if r.CPUs > grid.MilliOf(cfg.Machine.CPUs) {
		return usage(fmt.Sprintf("one trial needs %s processors, this machine has %g", r.CPUs, cfg.Machine.CPUs),
			"lower resources.cpus in project.yaml")
	}
	if r.Memory > cfg.Machine.Memory {
		return usage(fmt.Sprintf("one trial needs %s of memory, this machine has %s",
			bytesText(r.Memory), bytesText(cfg.Machine.Memory)),
			"lower resources.memory in project.yaml")
	}
	if !r.NeedsGPU() {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, gpuDriverTimeout)
	defer stop()
	never, problem := node.Never(ctx, cfg, r)
	switch {
	case never.Code == "":
		return nil
	case problem != "":
		return usage(fmt.Sprintf("this machine %s: %s", never, problem), "find out why with: mlfnode doctor")
	}
	return usage(fmt.Sprintf("this machine %s", never),
		"lower resources in project.yaml, or ask for no GPU to use the processors alone")
}

// gpuDriverTimeout bounds how long a GPU driver may take to wake up.
const gpuDriverTimeout = 20 * time.Second

// dryTrial is a trial as `sweep --dry-run --json` prints it.
type dryTrial struct {
	Index   int64        `json:"index"`
	Params  space.Params `json:"params"`
	Command []string     `json:"command"`
}

// dryLimit is how many commands a dry run shows by default.
const dryLimit = 20

// printDryRun prints what would run.
func printDryRun(ui *console, p *plan, limit int64) error {
	count := p.space.Count()
	n := min(count, limit)
	if ui.json {
		out := struct {
			Count  int64        `json:"count"`
			Trials []dryTrial   `json:"trials"`
			Packed *packedFiles `json:"packed,omitempty"`
		}{Count: count, Trials: make([]dryTrial, 0, n), Packed: packedOf(p.files)}
		for i := range n {
			params, err := p.space.At(i)
			if err != nil {
				return err
			}
			out.Trials = append(out.Trials, dryTrial{Index: i, Params: params, Command: p.task.Template().Argv(params)})
		}
		return json.NewEncoder(ui.stdout).Encode(out)
	}
	fmt.Fprintf(ui.stdout, "%s, task %s: %s\n", p.project.Name, p.task.Name, plural(count, "trial"))
	for i := range n {
		params, err := p.space.At(i)
		if err != nil {
			return err
		}
		fmt.Fprintf(ui.stdout, "%4d  %s\n", i, sanitize([]byte(p.task.Template().Display(params))))
	}
	if count > n {
		fmt.Fprintf(ui.stdout, "      … %d more; --limit N shows more of them\n", count-n)
	}
	return nil
}

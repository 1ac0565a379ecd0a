package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/command"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/projects"
)

func showCommand(a *app) *cobra.Command {
	dir := ""
	c := onSweep("show SWEEP", "Show what a sweep runs, where it came from, and why trials failed",
		`  mlfnode show last
  mlfnode show chainer-1 --json
  mlfnode show chainer-1 -o was`,
		func(ctx context.Context, id grid.TrialID) error {
			if id.Index >= 0 {
				return usage("show takes a whole sweep", fmt.Sprintf("mlfnode show %s, or: mlfnode trials %s",
					id.Sweep, id))
			}
			if dir != "" && a.json {
				return usage("-o fetches files, and --json prints what a sweep is", "run the command once with each")
			}
			return a.withSession(ctx, func(s *node.Session) error {
				if dir != "" {
					return fetchBundle(ctx, a.console, s.Client(), id.Sweep, dir)
				}
				return showSweep(ctx, a.console, s.Client(), id.Sweep)
			})
		})
	c.Long = `Show what a sweep runs, with its parameters and resources; who submitted it from which folder with
which command, and the commit and the changed files there; and how many trials failed, by class.
With -o, fetch the files that it was submitted with.`
	c.Flags().StringVarP(&dir,
		"output", "o", "", "fetch the files that the sweep was submitted with into this new folder")
	a.jsonFlag(c)
	return c
}

// fetchBundle writes the files that a sweep was submitted with to a new folder, completely or not
// at all.
func fetchBundle(ctx context.Context, ui *console, c *api.Client, id grid.SweepID, dir string) error {
	v, err := c.Sweeps().Get(ctx, id)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return failed(dir+" is there already", "name one that does not exist: -o DIR")
	}
	r, err := c.Bundles().OfSweep(ctx, v.Sweep)
	if err != nil {
		return err
	}
	defer r.Close()
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".mlfnode-*")
	if err != nil {
		return failed(fmt.Sprintf("the folder %s can't be created: %v", dir, problem.WithoutPath(err)),
			"choose another folder with -o")
	}
	defer func() { _ = projects.RemoveTree(tmp) }() // a leftover is a hidden folder
	files := filepath.Join(tmp, "files")
	if err := os.Mkdir(files, 0o755); err != nil { // with the mode of the user's umask
		return failed(fmt.Sprintf("the folder %s can't be created: %v", dir, problem.WithoutPath(err)),
			"choose another folder with -o")
	}
	if _, err := projects.Unpack(r, files); err != nil {
		for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
			if errors.Is(err, full) {
				return failed(fmt.Sprintf("the files can't be written: %v", err),
					"choose a folder on another disk with -o")
			}
		}
		return failed(fmt.Sprintf("the download is incomplete: %v", err), "run the command again")
	}
	if err := os.Rename(files, dir); err != nil {
		return failed(fmt.Sprintf("the folder %s can't be created: %v", dir, problem.WithoutPath(err)),
			"choose another folder with -o")
	}
	ui.say("the files of %s are in %s", v.Sweep, dir)
	if len(v.Bundles) > 1 {
		ui.say("note: some trials ran files of a later retry --update, which are not among them")
	}
	return nil
}

// sweepShown is a sweep as `show --json` prints it.
type sweepShown struct {
	api.Description
	Failures []api.FailureGroup `json:"failures"`
}

func showSweep(ctx context.Context, ui *console, c *api.Client, id grid.SweepID) error {
	d, why, err := describeSweep(ctx, c, id)
	if err != nil {
		return err
	}
	failures, err := failureGroupsOf(ctx, c, d.Sweep.Sweep)
	if err != nil {
		return err
	}
	if why != "" {
		ui.say("note: %s", why)
	}
	if ui.json {
		return ui.printJSON(sweepShown{d, append([]api.FailureGroup{}, failures.Groups...)})
	}
	t := newTextTable(ui.stdout, "sweep", strings.TrimSpace(string(d.Sweep.Sweep)+" "+d.Sweep.Name))
	for _, line := range aboutSweep(&d) {
		if line.text != "" {
			t.row(line.name, line.text)
		}
	}
	for _, g := range failures.Groups {
		t.row("failed", fmt.Sprintf("%d × %s (%s), as %s", g.Count, g.Class, g.Cause, g.Trial))
	}
	return t.flush()
}

// describeSweep asks for the description of a sweep. If the node can't or may not give it, the
// description has only the sweep, and why says the reason.
func describeSweep(ctx context.Context, c *api.Client, id grid.SweepID) (d api.Description, why string, err error) {
	v, err := c.Sweeps().Get(ctx, id)
	if err != nil {
		return d, "", err
	}
	d, err = c.Sweeps().Describe(ctx, v.Sweep)
	var refusal *api.Error
	switch {
	case errors.As(err, &refusal) && refusal.Status == http.StatusNotFound:
		return api.Description{Sweep: v},
			"the master runs an older version of mlfnode, which does not say what a sweep runs", nil
	case errors.As(err, &refusal) && refusal.Status == http.StatusForbidden:
		return api.Description{Sweep: v}, "with a viewer's token, commands and parameters are not shown", nil
	}
	return d, "", err
}

// factLine is a line about a sweep.
type factLine struct{ name, text string }

// aboutSweep returns the state of a sweep, where it came from and what it runs.
func aboutSweep(d *api.Description) []factLine {
	v := &d.Sweep
	_, stands, _ := strings.Cut(summaryLine(v), " ")
	submitted := v.Submitted.Local().Format(time.DateTime)
	if o := d.Origin; o != nil && o.User+o.Host != "" {
		submitted += " by " + cmp.Or(o.User, "an unknown user") + " on " + cmp.Or(o.Host, "an unknown host")
	}
	all := []factLine{{"state", stands}, {"submitted", submitted}}
	if o := d.Origin; o != nil {
		all = append(all, factLine{"command", command.Quote(o.Command...)}, factLine{"folder", o.Folder},
			factLine{"git", gitText(o.Git)})
	}
	all = append(all, factLine{"files", strings.Join(v.Bundles, ", then ")})
	return append(all, settingsOf(d)...)
}

// settingsOf returns what a sweep runs. The texts are equal for two sweeps that run the same.
func settingsOf(d *api.Description) []factLine {
	if d.Task.Name == "" {
		return []factLine{{"task", d.Sweep.Project + "." + d.Sweep.Task}, {"image", d.Sweep.Image}}
	}
	t := d.Task.Task()
	env := make([]string, 0, len(t.Env))
	for name, value := range t.Env {
		env = append(env, name+"="+value)
	}
	for _, name := range d.Hidden {
		env = append(env, name+"=…")
	}
	slices.Sort(env)
	bare := t
	bare.Constants = nil
	all := []factLine{
		{"task", d.Sweep.Project + "." + t.Name},
		{"program", bare.Template().Display(nil)},
		{"constants", assignmentsText(t.Constants)},
		{"setup", command.Quote(t.Setup...)}, {"venv", t.Venv}, {"image", d.Sweep.Image},
		{"environment", strings.Join(env, " ")},
	}
	all = append(all, parametersOf(&d.Space)...)
	r := t.Resources
	all = append(all, factLine{"resources", resourcesText(&r)})
	if t.Timeout > 0 {
		all = append(all, factLine{"timeout", t.Timeout.String()})
	}
	if o := t.Objective; o != nil {
		all = append(all, factLine{"objective", o.Goal + " " + o.Metric})
	}
	return all
}

// valuesShown is how many values of a parameter are shown.
const valuesShown = 8

func parametersOf(spec *api.SpaceSpec) []factLine {
	points, err := space.New(spec.Axes, nil)
	if err != nil {
		return nil // a space of a newer version
	}
	var all []factLine
	keys := points.Keys()
	for k, values := range points.Values() {
		var texts []string
		for i := range min(values.Count(), valuesShown) {
			texts = append(texts, values.At(i).Text)
		}
		text := strings.Join(texts, ", ")
		if values.Count() > valuesShown {
			text += fmt.Sprintf(", … (%d)", values.Count())
		}
		all = append(all, factLine{"parameter " + keys[k], text})
	}
	for _, condition := range spec.Exclude {
		all = append(all, factLine{"without", condition})
	}
	if s := spec.Sample; s != nil {
		all = append(all, factLine{"sample", fmt.Sprintf("%d points with the seed %d", s.Size, s.Seed)})
	}
	return all
}

func resourcesText(r *grid.Resources) string {
	parts := []string{r.CPUs.String() + " CPU"}
	if r.Memory > 0 {
		parts = append(parts, bytesText(r.Memory)+" of memory")
	}
	if r.GPUs > 0 {
		parts = append(parts, r.GPUs.String()+" GPU")
	}
	if r.GPUProfile != "" {
		parts = append(parts, r.GPUProfile)
	}
	switch {
	case r.Measured():
		parts = append(parts, "GPU memory as measured")
	case r.GPUMemory > 0:
		parts = append(parts, bytesText(r.GPUMemory)+" of GPU memory")
	}
	if r.Nodes != "" {
		parts = append(parts, "on "+r.Nodes.String())
	}
	return strings.Join(parts, ", ")
}

// gitText describes the commit that a folder was at.
func gitText(g *grid.Checkout) string {
	if g == nil {
		return ""
	}
	text := cmp.Or(g.Branch, "no branch") + " at " + cmp.Or(g.Commit, "no commit yet")
	if n := len(g.Changed) + g.More; n > 0 {
		text += fmt.Sprintf(", with %s: %s", plural(int64(n), "changed file"), strings.Join(g.Changed, ", "))
		if g.More > 0 {
			text += fmt.Sprintf(" and %d more", g.More)
		}
	}
	return text
}

func assignmentsText(params space.Params) string {
	all := make([]string, len(params))
	for i, p := range params {
		all[i] = p.Key + "=" + p.Value.Text
	}
	return strings.Join(all, " ")
}

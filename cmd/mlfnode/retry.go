package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/projects"
)

func retryCommand(a *app) *cobra.Command {
	var f followFlags
	var failedOnly, update bool
	var class string
	c := onSweep("retry SWEEP[/TRIAL]", "Run failed or cancelled trials again",
		`  mlfnode retry --failed chainer-1
  mlfnode retry --failed --update chainer-1
  mlfnode retry --class cuda_oom chainer-1
  mlfnode retry chainer-1/17`,
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
			return runAndFollow(ctx, a, id.Sweep, f, asSubmitted(a.console, "--update packs them again",
				func(c *api.Client, id grid.SweepID) (api.Done, error) {
					return uninterrupted(ctx, func(ctx context.Context) (api.Done, error) {
						return c.Sweeps().Retry(ctx, id, q)
					})
				}))
		})
	c.Long = c.Short + `.

They run the files as submitted, whatever has changed in the folder since. With --update the
project's folder is packed again, and these trials run the files as they are now; run the command in
that folder, or above it.`
	c.Flags().BoolVar(&update, "update", false, "run the files as they are now, not as they were submitted")
	c.Flags().StringVar(&class, "class", "", "only trials that failed in this `CLASS`, such as port or cuda_oom")
	c.Flags().BoolVar(&failedOnly, "failed", false, "only trials that failed")
	f.add(c)
	return c
}

// asSubmitted wraps fn, which makes a sweep run, and prints which files the trials run: those of
// the submission, not those in the folder now.
func asSubmitted(
	ui *console, hint string, fn func(*api.Client, grid.SweepID) (api.Done, error),
) func(*api.Client, api.Sweep) (api.Done, error) {
	return func(c *api.Client, v api.Sweep) (api.Done, error) {
		done, err := fn(c, v.Sweep)
		if err != nil || done.Sweep.State != grid.SweepRunning || len(done.Sweep.Bundles) == 0 {
			return done, err
		}
		files := "the files as submitted on " + done.Sweep.Submitted.Local().Format(time.DateTime)
		if n := len(done.Sweep.Bundles); n > 1 {
			files += ", or as a retry has updated them"
		}
		ui.say("%s runs %s, not as they are now; %s", v.Sweep, files, hint)
		return done, nil
	}
}

// retryUpdated returns a function that retries trials with the files as they are now.
func retryUpdated(ctx context.Context, a *app, q api.Retry, quiet bool) func(*api.Client, api.Sweep) (api.Done, error) {
	return func(c *api.Client, v api.Sweep) (api.Done, error) {
		p, include, err := projectOf(&v)
		if err != nil {
			return api.Done{}, err
		}
		if err := listFiles(a, p, include); err != nil {
			return api.Done{}, err
		}
		b, err := packBundle(ctx, a.console, p, quiet)
		if err != nil {
			return api.Done{}, err
		}
		defer b.remove()
		if b.digest == "" {
			return api.Done{}, usage(fmt.Sprintf("no file of %s travels to the trials of %s", p.project.Dir, v.Sweep),
				"run the command in the project's folder")
		}
		q.Bundle = b.digest
		done, err := withBundle(ctx, c, b, func(ctx context.Context) (api.Done, error) {
			return c.Sweeps().Retry(ctx, v.Sweep, q)
		})
		if err == nil && done.Changed > 0 {
			a.say("%s: %s run with the files of %s as they are now; command and parameters stay as submitted", v.Sweep,
				plural(done.Changed, "trial"), p.project.Dir)
		}
		return done, err
	}
}

// projectOf finds the project of a sweep: in the current folder, or in one below it that has the
// project's name.
func projectOf(v *api.Sweep) (*plan, []string, error) {
	if len(v.Bundles) == 0 {
		return nil, nil, usage(fmt.Sprintf("%s was submitted without files, so there is nothing to update", v.Sweep),
			"mlfnode retry --failed "+string(v.Sweep))
	}
	cwd, err := os.Getwd()
	if err != nil {
		return nil, nil, fmt.Errorf("find the current folder: %w", err)
	}
	elsewhere := usage(fmt.Sprintf("the folder of the project %s is not found from here", v.Project),
		"run the command in that folder")
	_, err = os.Stat(filepath.Join(cwd, "project.yaml"))
	if err != nil && v.Task == v.Project {
		if folder, err := projects.Load(filepath.Join(cwd, v.Project)); err != nil || folder.Name != v.Project {
			if what := projects.NotAProject(cwd); what != "" {
				return nil, nil,
					usage(
						fmt.Sprintf(
							"%s runs with the files of the current folder, but %s does not travel to the trials",
							v.Sweep, what),
						"run the command in the folder of the files")
			}
			// an ad-hoc command
			return &plan{project: &projects.Project{Name: v.Project, Dir: cwd, Bundled: true, Lenient: true}}, nil, nil
		}
	}
	for _, dir := range []string{cwd, filepath.Join(cwd, v.Project), filepath.Join(cwd, "projects", v.Project)} {
		folder, err := projects.Load(dir)
		if err != nil || folder.Name != v.Project {
			continue
		}
		def, err := folder.Task(v.Task)
		if err != nil {
			return nil, nil, asUsage(err)
		}
		return &plan{project: folder, task: def.Task}, def.Include, nil
	}
	return nil, nil, elsewhere
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

// reasonsShown is how many failed trials are listed with their reasons at the end of a sweep.
const reasonsShown = 5

// conclude prints the result table, the failures and a summary.
func (a *app) conclude(ctx context.Context, f *follower, v *api.Sweep, flags followFlags) error {
	if v == nil {
		return nil
	}
	client := f.node().Client()
	if flags.csv != "" {
		if err := a.writeCSVFile(ctx, client, flags.csv, selection{sweep: v}); err != nil {
			return err
		}
	}
	if flags.quiet {
		return nil
	}
	if err := a.resultTable(ctx, client, v, api.TrialQuery{Limit: tableRows + 1}); err != nil {
		return err
	}
	if flags.adhoc {
		if err := a.sayLeft(ctx, client, v); err != nil {
			return err
		}
	}
	if v.Failed > 0 {
		if err := a.reasons(ctx, client, v); err != nil {
			return err
		}
		if err := a.failureGroups(ctx, client, v); err != nil {
			return err
		}
		if err := a.hintLeftOut(ctx, client, v, flags.files); err != nil {
			return err
		}
	}
	if v.Stopped > 0 {
		if err := a.stoppedEarly(ctx, client, v); err != nil {
			return err
		}
	}
	if v.Objective != nil {
		if err := a.best(ctx, client, v); err != nil {
			return err
		}
	}
	a.say("%s", summary(v))
	if v.Problem != "" {
		a.say("%s: %s", v.Sweep, oneLine(v.Problem))
	}
	return nil
}

// sayLeft says how much trials have made in their folders that is gone now, as far as the first ones show.
func (a *app) sayLeft(ctx context.Context, c *api.Client, v *api.Sweep) error {
	var count int64
	for t, err := range c.Trials(ctx, v.Sweep, api.TrialQuery{Limit: tableRows}) {
		if err != nil {
			return err
		}
		count += int64(t.Left)
	}
	if count == 0 {
		return nil
	}
	text := plural(count, "file or folder")
	if count > 1 {
		text = fmt.Sprintf("%d files and folders", count)
	}
	if v.Count > tableRows {
		text += fmt.Sprintf(" of the first %d trials", tableRows)
	}
	a.say("note: %s that trials made in their folders went with them; to keep such: --artifact 'PATTERN', or write to $MLF_OUT", text)
	return nil
}

// reasons says why some trials failed.
func (a *app) reasons(ctx context.Context, c *api.Client, v *api.Sweep) error {
	q := api.TrialQuery{States: []grid.State{grid.Failed}}
	return a.someTrials(ctx, c, v, q, v.Failed, "--state failed", func(t *api.Trial) string {
		return "failed: " + strings.Join(reasonLines(t.Reason), " · ")
	})
}

// stoppedEarly says of some trials why they were stopped early.
func (a *app) stoppedEarly(ctx context.Context, c *api.Client, v *api.Sweep) error {
	q := api.TrialQuery{States: []grid.State{grid.Cancelled}, Class: grid.ClassStopped}
	return a.someTrials(ctx, c, v, q, v.Stopped, "--class "+string(grid.ClassStopped), func(t *api.Trial) string { return oneLine(t.Reason) })
}

// someTrials says something of the first of all trials that a query is about; flags of `mlfnode trials` show the others.
func (a *app) someTrials(ctx context.Context, c *api.Client, v *api.Sweep, q api.TrialQuery, all int64, flags string, about func(*api.Trial) string) error {
	q.Limit = reasonsShown
	for t, err := range c.Trials(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		a.say("%s %s", t.Trial, about(&t))
	}
	if all > reasonsShown {
		a.say("… and %d more: mlfnode trials %s %s", all-reasonsShown, v.Sweep, flags)
	}
	return nil
}

// best names the best trial.
func (a *app) best(ctx context.Context, c *api.Client, v *api.Sweep) error {
	for t, err := range c.Trials(ctx, v.Sweep, bestQuery(v.Objective, 1)) {
		if err != nil {
			return err
		}
		if len(t.Metrics[v.Objective.Metric]) == 0 {
			break
		}
		a.say("best %s: %s by %s", v.Objective.Metric, metricText(t.Metrics[v.Objective.Metric]), t.Trial)
	}
	return nil
}

// knowsObjective fails when no trial that succeeded has a number for the objective: then none of them is the best.
func (a *app) knowsObjective(ctx context.Context, c *api.Client, v *api.Sweep) error {
	if v.Objective == nil {
		return nil // the node says so
	}
	best, err := bestIndex(ctx, c, v)
	if err != nil || best >= 0 {
		return err
	}
	hint := "no trial has reported any metric; see the notes of: mlfnode results " + string(v.Sweep)
	if len(v.Metrics) > 0 {
		hint = "the metrics are " + strings.Join(v.Metrics[:min(len(v.Metrics), 12)], ", ") + "; name one under objective in project.yaml, or use --sort"
	}
	return failed(fmt.Sprintf("no trial of %s that succeeded has a number for %s, the objective of task %s", v.Sweep, v.Objective.Metric, v.Task), hint)
}

// bestQuery selects the n best trials.
func bestQuery(o *grid.Objective, n int64) api.TrialQuery {
	return api.TrialQuery{States: []grid.State{grid.Succeeded}, Sort: "objective", Desc: o.Goal != "minimize", Limit: n}
}

func summary(v *api.Sweep) string {
	text := fmt.Sprintf("%s %s: %d of %d succeeded", v.Sweep, v.State, v.Succeeded, v.Count)
	if v.Failed > 0 {
		text += fmt.Sprintf(", %d failed", v.Failed)
	}
	if v.Stopped > 0 {
		text += fmt.Sprintf(", %d stopped early", v.Stopped)
	}
	if n := v.OnlyCancelled(); n > 0 {
		text += fmt.Sprintf(", %d cancelled", n)
	}
	if v.Started != nil && v.Ended != nil {
		text += ", in " + printable.Seconds(v.Ended.Sub(*v.Started).Seconds())
	}
	return text
}

// writeCSVFile writes the table of sweeps into a file.
func (a *app) writeCSVFile(ctx context.Context, c *api.Client, path string, all ...selection) error {
	return a.writeTable(all[0].sweep, path, "--csv", func(w io.Writer) error { return writeCSV(ctx, w, c, all...) })
}

// writeTable writes a table of a sweep into the file that a flag names.
func (a *app) writeTable(v *api.Sweep, path, flag string, write func(io.Writer) error) error {
	err := writeWhole(path, write)
	if err != nil {
		return failed(fmt.Sprintf("the table can't be written to %s: %v", path, bare(err)),
			fmt.Sprintf("the sweep is %s; write the table elsewhere with: mlfnode results %s %s=FILE", v.State, v.Sweep, flag))
	}
	return nil
}

// writeWhole writes beside a file and renames, so that the file is there whole or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".mlfnode-*"+filepath.Ext(path))
	if err != nil {
		return err
	}
	err = write(tmp)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

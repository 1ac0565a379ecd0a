package main

import (
	"context"
	"fmt"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

// reasonsShown is how many failed trials are listed with their reasons after a sweep.
const reasonsShown = 5

// printSummary prints the result table, the failures and a summary.
func printSummary(ctx context.Context, ui *console, f *follower, v *api.Sweep, flags followFlags) error {
	if v == nil {
		return nil
	}
	client := f.currentSession().Client()
	if flags.csv != "" {
		if err := writeCSVFile(ctx, client, flags.csv, selection{sweep: v}); err != nil {
			return err
		}
	}
	if flags.quiet {
		return nil
	}
	if err := printResults(ctx, ui, client, v, api.TrialQuery{Limit: tableRows + 1}); err != nil {
		return err
	}
	if flags.adhoc {
		if err := noteDiscardedFiles(ctx, ui, client, v); err != nil {
			return err
		}
	}
	if v.Failed > 0 {
		q := api.TrialQuery{States: []grid.State{grid.Failed}}
		err := printSomeTrials(ctx, ui, client, v, q, v.Failed, "--state failed", func(t *api.Trial) string {
			return "failed: " + strings.Join(reasonLines(t.Reason), " · ")
		})
		if err != nil {
			return err
		}
		if err := printFailureGroups(ctx, ui, client, v); err != nil {
			return err
		}
		if err := noteLeftOut(ctx, ui, client, v, flags.files); err != nil {
			return err
		}
	}
	if v.Stopped > 0 {
		q := api.TrialQuery{States: []grid.State{grid.Cancelled}, Class: grid.ClassStopped}
		err := printSomeTrials(ctx, ui, client, v, q, v.Stopped, "--class "+string(grid.ClassStopped),
			func(t *api.Trial) string {
				return oneLine(t.Reason)
			})
		if err != nil {
			return err
		}
	}
	if v.Objective != nil {
		if err := printBest(ctx, ui, client, v); err != nil {
			return err
		}
	}
	ui.say("%s", summaryLine(v))
	if v.Problem != "" {
		ui.say("%s: %s", v.Sweep, oneLine(v.Problem))
	}
	return nil
}

// noteDiscardedFiles prints how many files the first trials left in their folders that are gone
// now.
func noteDiscardedFiles(ctx context.Context, ui *console, c *api.Client, v *api.Sweep) error {
	var count int64
	for t, err := range c.Trials().List(ctx, v.Sweep, api.TrialQuery{Limit: tableRows}) {
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
	ui.say("note: %s that trials made in their folders were deleted with them; "+
		"to keep such files: --artifact 'PATTERN', or write to $MLF_OUT", text)
	return nil
}

// printSomeTrials prints a line about each of the first trials of a query; the flags of `mlfnode
// trials` show the others.
func printSomeTrials(
	ctx context.Context, ui *console, c *api.Client, v *api.Sweep, q api.TrialQuery, all int64, flags string,
	about func(*api.Trial) string,
) error {
	q.Limit = reasonsShown
	for t, err := range c.Trials().List(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		ui.say("%s %s", t.Trial, about(&t))
	}
	if all > reasonsShown {
		ui.say("… and %d more: mlfnode trials %s %s", all-reasonsShown, v.Sweep, flags)
	}
	return nil
}

// printBest prints the best trial.
func printBest(ctx context.Context, ui *console, c *api.Client, v *api.Sweep) error {
	for t, err := range c.Trials().List(ctx, v.Sweep, bestQuery(v.Objective, 1)) {
		if err != nil {
			return err
		}
		if len(t.Metrics[v.Objective.Metric]) == 0 {
			break
		}
		ui.say("best %s: %s by %s", v.Objective.Metric, metricText(t.Metrics[v.Objective.Metric]), t.Trial)
	}
	return nil
}

func summaryLine(v *api.Sweep) string {
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

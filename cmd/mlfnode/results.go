package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node"
	"mlfnode/node/api"
)

func resultsCommand(a *app) *cobra.Command {
	var f listFlags
	c := &cobra.Command{
		Use: "results SWEEP...", Short: "Show the results of the trials: parameters, metrics, resources",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && looksLikeSweep(f.csv) {
				return usage("--csv takes the word after it for a file, and "+f.csv+" looks like a sweep",
					"put the sweeps first: mlfnode results "+strings.Join(append([]string{f.csv}, args...), " ")+
						" --csv all.csv; for a file of that name: --csv ./"+f.csv)
			}
			if names := f.sweepOf(args); len(names) < 2 {
				return oneArgument(c, names)
			}
			if f.csv == "" && !a.json {
				return usage("the results of several sweeps can only be written as CSV or JSON",
					"mlfnode results "+strings.Join(args, " ")+
						" --csv all.csv; mlfnode compare shows two side by side")
			}
			for _, other := range []string{"best", "limit", "offset", "group-by", "over"} {
				if c.Flags().Changed(other) {
					return usage("for several sweeps all trials are written, which can't be combined with --"+other,
						"name one sweep")
				}
			}
			return nil
		},
		Example: `  mlfnode results last
  mlfnode results chainer-1 --best 5
  mlfnode results chainer-1 --where opt=adam --where loss=..0.5
  mlfnode results chainer-1 --group-by lr,opt
  mlfnode results chainer-1 --over seed --csv means.csv
  mlfnode results chainer-1 --csv results.csv
  mlfnode results chainer-1 chainer-2 --csv both.csv
  mlfnode results chainer-1 --parquet results.parquet
  mlfnode results chainer-1 --columns trial,lr,loss --csv loss.csv`,
		RunE: func(c *cobra.Command, args []string) error {
			var ids []grid.TrialID
			for _, arg := range f.sweepOf(args) {
				id, err := parseTarget(arg)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			id := ids[0]
			if len(args) == 0 {
				f.csv = "-"
			}
			if a.json && f.csv != "" {
				return usage("results prints CSV or JSON, not both", "mlfnode results "+string(id.Sweep)+" --json")
			}
			if f.parquet == "-" {
				return usage("--parquet writes to a file, not to the screen",
					"mlfnode results "+string(id.Sweep)+" --parquet results.parquet")
			}
			if f.parquet != "" && (a.json || f.csv != "" || f.groups.given()) {
				return usage("--parquet writes all trials and can't be combined with --csv, --json or groups",
					"mlfnode results "+string(id.Sweep)+" --parquet "+f.parquet)
			}
			if c.Flags().Changed("best") {
				if f.best < 1 {
					return usage("--best must be at least 1", "--best 5")
				}
				for _, other := range []string{"sort", "desc", "limit", "offset", "state", "group-by", "over"} {
					if c.Flags().Changed(other) {
						return usage(
							fmt.Sprintf("--best orders trials by the task's objective and can't be combined with --%s",
								other),
							"--sort objective, with --limit, --state and the like")
					}
				}
			}
			for _, other := range []string{"state", "class", "where"} {
				if f.groups.given() && c.Flags().Changed(other) {
					return usage("groups include all trials with their parameters and can't be combined with --"+other,
						"the columns failed and n count them")
				}
			}
			if f.groups.given() && len(f.columns) > 0 {
				return usage("--columns chooses columns of trials and can't be combined with groups",
					"leave out one of them")
			}
			if f.groups.value != "" && !f.groups.given() {
				return usage("--value chooses what groups summarise",
					"use it with --group-by or --over, as in --group-by lr --value "+f.groups.value)
			}
			q, err := f.query(!a.json && f.csv == "" && f.parquet == "")
			if err != nil {
				return err
			}
			return a.withSession(c.Context(), func(s *node.Session) error {
				if len(ids) > 1 {
					return listSeveralResults(c.Context(), a.console, s.Client(), ids, q, &f)
				}
				return listResults(c.Context(), a.console, s.Client(), id.Sweep, q, &f)
			})
		},
	}
	f.add(c, a.connector)
	c.Flags().Int64Var(&f.best, "best", 0, "the N best trials by the task's objective")
	c.Flags().StringSliceVar(&f.groups.by, "group-by", nil,
		"mean, standard deviation and best of the trials with the same values of these `PARAMETERS`")
	c.Flags().StringSliceVar(&f.groups.over, "over", nil,
		"the same, grouped by all parameters except these `PARAMETERS`, such as a seed or repeat")
	c.Flags().StringVar(&f.groups.value, "value", "",
		"what groups summarise: a metric, wall, cpu or memory (default the objective, or the first metric)")
	c.Flags().StringVar(&f.csv, "csv", "", "write CSV, to a file or to the screen")
	c.Flags().Lookup("csv").NoOptDefVal = "-"
	c.Flags().StringVar(&f.parquet, "parquet", "", "write a Parquet `FILE`, with typed columns")
	a.jsonFlag(c)
	return c
}

// looksLikeSweep reports whether a word is last, or has the form of a sweep's ID.
func looksLikeSweep(word string) bool {
	dash := strings.LastIndexByte(word, '-')
	_, err := strconv.ParseUint(word[dash+1:], 10, 64)
	return word == "last" || dash > 0 && err == nil && !strings.ContainsAny(word, "./")
}

func listResults(
	ctx context.Context, ui *console, client *api.Client, id grid.SweepID, q api.TrialQuery, f *listFlags,
) error {
	v, err := client.Sweeps().Get(ctx, id)
	if err != nil {
		return err
	}
	if f.groups.given() {
		return printGroups(ctx, ui, client, &v, f)
	}
	where, err := f.conditions(&v)
	if err != nil {
		return err
	}
	if f.best > 0 {
		if v.Objective == nil {
			return usage(fmt.Sprintf("task %s has no objective to rank trials by", v.Task),
				"--sort METRIC --desc, or set objective in project.yaml")
		}
		q = bestQuery(v.Objective, f.best)
	}
	q.Where = where
	if q.Sort == "objective" {
		if err := checkObjective(ctx, client, &v); err != nil {
			return err
		}
	}
	chosen, err := f.selections(selection{sweep: &v, query: q})
	if err != nil {
		return err
	}
	switch {
	case ui.json:
		return writeTrialsJSON(ctx, ui, client, chosen...)
	case f.csv != "":
		return writeResultsCSV(ctx, ui, client, f.csv, chosen...)
	case f.parquet != "":
		return writeParquetFile(ctx, client, f.parquet, chosen[0])
	case len(f.columns) > 0:
		return printColumns(ctx, ui, client, chosen[0])
	}
	if err := printResults(ctx, ui, client, &v, q); err != nil {
		return err
	}
	return printFailureGroups(ctx, ui, client, &v)
}

// writeResultsCSV writes the trials of sweeps to a file, or prints them for "-".
func writeResultsCSV(ctx context.Context, ui *console, client *api.Client, file string, all ...selection) error {
	if file != "-" {
		return writeCSVFile(ctx, client, file, all...)
	}
	w := bufio.NewWriterSize(ui.stdout, 64<<10)
	if err := writeCSV(ctx, w, client, all...); err != nil {
		return err
	}
	return w.Flush()
}

// listSeveralResults writes the trials of several sweeps, one sweep after the other.
func listSeveralResults(
	ctx context.Context, ui *console, client *api.Client, ids []grid.TrialID, q api.TrialQuery, f *listFlags,
) error {
	all := make([]selection, len(ids))
	for i, id := range ids {
		v, err := client.Sweeps().Get(ctx, id.Sweep)
		if err != nil {
			return err
		}
		all[i] = selection{sweep: &v, query: q}
		if all[i].query.Where, err = f.conditions(&v); err != nil {
			return err
		}
	}
	all, err := f.selections(all...)
	if err != nil {
		return err
	}
	if ui.json {
		return writeTrialsJSON(ctx, ui, client, all...)
	}
	return writeResultsCSV(ctx, ui, client, f.csv, all...)
}

// printResults prints trials with their parameters and metrics, the best one marked.
func printResults(ctx context.Context, ui *console, c *api.Client, v *api.Sweep, q api.TrialQuery) error {
	best, err := bestIndex(ctx, c, v)
	if err != nil {
		return err
	}
	head, tail := []string{"trial"}, []string{"wall", "cpu", "memory", "node"}
	keys, metrics := columnNames(v, append(head, "state"), tail)
	head = append(append(append(head, keys...), "state"), metrics...)
	t := newTable(ui.stdout, append(head, tail...)...)
	shown, lost := int64(0), lostOutput{}
	var without incompleteTrials
	for tr, err := range c.Trials().List(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		if shown++; q.Limit == tableRows+1 && shown > tableRows {
			break
		}
		lost.add(&tr)
		t.row(resultRow(v, &tr, tr.Index == best)...)
		without.add(&tr)
	}
	if err := t.flush(); err != nil {
		return err
	}
	without.print(ui)
	if n := len(v.Bundles); n > 1 {
		ui.say("note: these trials ran %d versions of the files: %s; --json says which ran which", n,
			strings.Join(v.Bundles, ", "))
	}
	if q.Limit == tableRows+1 && shown > tableRows {
		fmt.Fprintf(ui.stdout, "… of %d trials; all of them with: mlfnode results %s --limit 0\n", v.Count, v.Sweep)
	}
	lost.print(ui)
	return nil
}

// incompleteTrials counts the trials that succeeded but lack something that their task asks for.
type incompleteTrials struct {
	count int64
	trial string
	what  string // of the first
}

func (m *incompleteTrials) add(t *api.Trial) {
	if t.State != grid.Succeeded || t.Reason == "" {
		return
	}
	if m.count++; m.count == 1 {
		m.trial, m.what = t.Trial, t.Reason
	}
}

func (m *incompleteTrials) print(ui *console) {
	switch {
	case m.count == 1:
		ui.say("note: %s: %s", m.trial, oneLine(m.what))
	case m.count > 1:
		ui.say("note: %d trials succeeded and left something out; %s: %s", m.count, m.trial, oneLine(m.what))
	}
}

func bestIndex(ctx context.Context, c *api.Client, v *api.Sweep) (int64, error) {
	if v.Objective == nil {
		return -1, nil
	}
	for t, err := range c.Trials().List(ctx, v.Sweep, bestQuery(v.Objective, 1)) {
		f, e := strconv.ParseFloat(string(t.Metrics[v.Objective.Metric]), 64)
		if err == nil && (e != nil || math.IsInf(f, 0) || math.IsNaN(f)) {
			return -1, nil
		}
		return t.Index, err
	}
	return -1, nil
}

// bestQuery returns a query for the n best trials.
func bestQuery(o *grid.Objective, n int64) api.TrialQuery {
	return api.TrialQuery{States: []grid.State{grid.Succeeded}, Sort: "objective", Desc: o.Goal != "minimize", Limit: n}
}

// checkObjective fails if no trial that succeeded has a number for the objective, so that none is
// the best.
func checkObjective(ctx context.Context, c *api.Client, v *api.Sweep) error {
	if v.Objective == nil {
		return nil // the node reports it
	}
	best, err := bestIndex(ctx, c, v)
	if err != nil || best >= 0 {
		return err
	}
	hint := "no trial has reported any metric; see the notes of: mlfnode results " + string(v.Sweep)
	if len(v.Metrics) > 0 {
		hint = "the metrics are " + strings.Join(v.Metrics[:min(len(v.Metrics), 12)], ", ") +
			"; name one under objective in project.yaml, or use --sort"
	}
	return failed(fmt.Sprintf("no trial of %s that succeeded has a number for %s, the objective of task %s",
		v.Sweep, v.Objective.Metric, v.Task), hint)
}

func resultRow(v *api.Sweep, t *api.Trial, best bool) []string {
	index := strconv.FormatInt(t.Index, 10)
	if best {
		index += "*"
	}
	row := []string{index}
	for _, key := range v.Keys {
		row = append(row, paramText(t.Params, key))
	}
	row = append(row, string(t.State))
	for _, name := range v.Metrics {
		row = append(row, metricText(t.Metrics[name]))
	}
	if t.Attempts == 0 {
		return row
	}
	return append(row, printable.Seconds(t.Usage.Wall), printable.Seconds(t.Usage.CPU),
		bytesText(t.Usage.Memory), string(t.Node))
}

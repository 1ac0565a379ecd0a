package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node"
	"mlfnode/node/api"
)

// listFlags select and order trials.
type listFlags struct {
	states  []string
	class   string
	where   []string
	sort    string
	desc    bool
	limit   int64
	offset  int64
	best    int64
	csv     string
	parquet string
	columns []string
	groups  groupFlags
}

func (f *listFlags) add(c *cobra.Command, to *connector) {
	c.Flags().StringSliceVar(&f.states, "state", nil,
		"only trials in this state: pending, running, succeeded, failed, cancelled")
	c.Flags().StringVar(&f.class, "class", "", "only trials that failed in this `CLASS`, such as port or cuda_oom")
	c.Flags().StringArrayVar(&f.where, "where", nil,
		"only trials that have started and have this `KEY=VALUE` or KEY=LO..HI, of a parameter, a metric or node; repeatable, also for one key")
	c.Flags().StringVar(&f.sort, "sort", "index",
		"order by a metric or parameter, or index, state, attempts, started, ended, wall, cpu, memory, objective")
	c.Flags().BoolVar(&f.desc, "desc", false, "largest first")
	c.Flags().Int64Var(&f.limit, "limit", -1,
		"maximum number of rows to print; 0 means all (default 50 in a table, otherwise all)")
	c.Flags().Lookup("limit").DefValue = "0" // -1 only stands for "not given": the help has no default
	c.Flags().Int64Var(&f.offset, "offset", 0, "how many rows to skip")
	c.Flags().StringSliceVar(&f.columns, "columns", nil,
		"only these `COLUMNS`, in this order: fields such as state or wall_seconds, parameters and metrics")
	if err := c.RegisterFlagCompletionFunc("columns", completeColumns(to)); err != nil {
		panic(err) // the flag is not there
	}
}

// query returns the selection; table limits the rows by default.
func (f *listFlags) query(table bool) (api.TrialQuery, error) {
	if f.class != "" {
		if err := checkClass(f.class); err != nil {
			return api.TrialQuery{}, err
		}
	}
	q := api.TrialQuery{Class: grid.Class(f.class), Sort: f.sort, Desc: f.desc, Limit: max(f.limit, 0),
		Offset: f.offset}
	for _, s := range f.states {
		if !slices.Contains(grid.States[:], grid.State(s)) {
			return q, usage(fmt.Sprintf("%q is not a state of a trial", s),
				"pending, running, succeeded, failed or cancelled")
		}
		q.States = append(q.States, grid.State(s))
	}
	if f.offset < 0 || f.limit < -1 {
		return q, usage("--limit and --offset must not be negative", "--limit 0 shows all")
	}
	if table && f.limit < 0 {
		q.Limit = tableRows + 1
	}
	return q, nil
}

// conditions parses --where for the trials of a sweep, in the form of TrialQuery.Where.
func (f *listFlags) conditions(v *api.Sweep) (url.Values, error) {
	if len(f.where) == 0 {
		return nil, nil
	}
	where := url.Values{}
	for _, text := range f.where {
		key, value, given := strings.Cut(text, "=")
		switch {
		case !given || key == "":
			return nil, usage(fmt.Sprintf("--where takes KEY=VALUE or KEY=LO..HI, not %q", text),
				"--where lr=0.1, --where loss=..0.5, --where node=hostB")
		case slices.Contains(v.Keys, key):
			where.Add("p["+key+"]", value)
		case slices.Contains(v.Metrics, key):
			where.Add("m["+key+"]", value)
		case key == "node":
			where.Add(key, value)
		default:
			known := slices.Concat(v.Keys, v.Metrics[:min(len(v.Metrics), 12)], []string{"node"})
			return nil, usage(fmt.Sprintf("%s has no parameter or metric %q", v.Sweep, key),
				"--where takes "+strings.Join(known, ", "))
		}
	}
	return where, nil
}

// sweepOf returns the arguments that name sweeps. A single one may follow --csv, which takes a file
// or stands alone.
func (f *listFlags) sweepOf(args []string) []string {
	if len(args) == 0 && f.csv != "" && f.csv != "-" && !strings.ContainsAny(f.csv, "./") {
		return []string{f.csv}
	}
	return args
}

func trialsCommand(a *app) *cobra.Command {
	var f listFlags
	explain := false
	c := &cobra.Command{
		Use: "trials SWEEP[/TRIAL]", Short: "List the trials of a sweep, or the attempts of one", Args: oneArgument,
		Example: `  mlfnode trials chainer-1 --state failed
  mlfnode trials chainer-1 --class cuda_oom
  mlfnode trials last --sort wall --desc --limit 10
  mlfnode trials chainer-1 --columns index,lr,wall_seconds
  mlfnode trials chainer-1/17
  mlfnode trials --explain chainer-1/17`,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			q, err := f.query(!a.json)
			if err != nil {
				return err
			}
			if explain && id.Index < 0 {
				return usage("--explain takes one trial", fmt.Sprintf("name it as in: mlfnode trials --explain %s/0",
					id.Sweep))
			}
			if len(f.columns) > 0 && id.Index >= 0 {
				return usage("--columns chooses columns of the trials of a sweep",
					"mlfnode trials "+string(id.Sweep)+" --columns "+strings.Join(f.columns, ","))
			}
			return a.withSession(c.Context(), func(s *node.Session) error {
				if explain {
					return printExplanation(c.Context(), a.console, s.Client(), id)
				}
				if id.Index >= 0 {
					return printAttempts(c.Context(), a.console, s.Client(), id)
				}
				return listTrials(c.Context(), a.console, s.Client(), id.Sweep, q, &f)
			})
		},
	}
	f.add(c, a.connector)
	c.Flags().BoolVar(&explain, "explain", false, "say why the trial waits, node by node")
	a.jsonFlag(c)
	return c
}

// printExplanation prints the state of a trial, and why it waits.
func printExplanation(ctx context.Context, ui *console, c *api.Client, id grid.TrialID) error {
	e, err := c.Trials().Explain(ctx, id)
	if err != nil {
		return err
	}
	if ui.json {
		return ui.printJSON(e)
	}
	fmt.Fprintf(ui.stdout, "%s is %s: %s\n", e.Trial, e.State, e.Text)
	for _, o := range e.Nodes {
		fmt.Fprintf(ui.stdout, "  %s: %s (%s)\n", cmp.Or(string(o.Node), "this machine"), o.Text, o.Code)
	}
	return nil
}

func listTrials(
	ctx context.Context, ui *console, c *api.Client, id grid.SweepID, q api.TrialQuery, f *listFlags,
) error {
	v, err := c.Sweeps().Get(ctx, id)
	if err != nil {
		return err
	}
	if q.Where, err = f.conditions(&v); err != nil {
		return err
	}
	chosen, err := f.selections(selection{sweep: &v, query: q})
	if err != nil {
		return err
	}
	switch {
	case ui.json:
		return writeTrialsJSON(ctx, ui, c, chosen...)
	case len(f.columns) > 0:
		return printColumns(ctx, ui, c, chosen[0])
	}
	t := trialTable{stdout: ui.stdout, client: c, sweep: &v}
	shown, lost := int64(0), lostOutput{}
	for tr, err := range c.Trials().List(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		if shown++; q.Limit == tableRows+1 && shown > tableRows {
			break
		}
		lost.add(&tr)
		if err := t.add(ctx, &tr); err != nil {
			return err
		}
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	if q.Limit == tableRows+1 && shown > tableRows {
		ui.say("… more; all of them with --limit 0")
	}
	lost.print(ui)
	return printFailureGroups(ctx, ui, c, &v)
}

// trialTable prints trials. It buffers the first ones until it knows whether there are more: a
// short table gets a column of curves.
type trialTable struct {
	stdout io.Writer
	client *api.Client
	sweep  *api.Sweep
	first  []api.Trial
	curves map[int64]string
	rows   *table
}

func (t *trialTable) add(ctx context.Context, tr *api.Trial) error {
	if t.rows != nil {
		t.rows.row(t.cells(tr)...)
		return nil
	}
	if len(t.first) < tableRows {
		t.first = append(t.first, *tr)
		return nil
	}
	t.printHead()
	return t.add(ctx, tr)
}

func (t *trialTable) flush(ctx context.Context) (err error) {
	if t.rows == nil {
		if t.curves, err = sparklines(ctx, t.client, t.sweep.Sweep, mainMetric(t.sweep), t.first); err != nil {
			return err
		}
		t.printHead()
	}
	return t.rows.flush()
}

// printHead prints the head and the buffered trials.
func (t *trialTable) printHead() {
	head := []string{"trial", "state", "attempts", "exit", "wall"}
	if len(t.curves) > 0 {
		head = append(head, "curve:"+mainMetric(t.sweep))
	}
	head = append(head, "node", "reason")
	keys, _ := columnNames(t.sweep, head)
	t.rows = newTable(t.stdout, append(head, keys...)...)
	t.rows.whole = len(head) - 1
	for i := range t.first {
		t.rows.row(t.cells(&t.first[i])...)
	}
}

func (t *trialTable) cells(tr *api.Trial) []string {
	wall := ""
	if tr.Ended != nil || tr.State == grid.Running && tr.Started != nil {
		wall = printable.Seconds(tr.Usage.Wall)
	}
	row := []string{strconv.FormatInt(tr.Index, 10), string(tr.State), strconv.Itoa(tr.Attempts),
		exitText(tr.ExitCode), wall}
	if len(t.curves) > 0 {
		row = append(row, t.curves[tr.Index])
	}
	row = append(row, string(tr.Node), truncate(shortReason(tr.Reason), reasonWidth))
	for _, key := range t.sweep.Keys {
		row = append(row, paramText(tr.Params, key))
	}
	return row
}

// reasonWidth is where a reason is truncated in a table.
const reasonWidth = 160

// selection is trials of a sweep.
type selection struct {
	sweep   *api.Sweep
	query   api.TrialQuery
	columns []trialColumn // nil for all
}

// selections gives the selected trials of sweeps, of which --columns may choose columns.
func (f *listFlags) selections(all ...selection) ([]selection, error) {
	if len(f.columns) == 0 {
		return all, nil
	}
	columns, err := chooseColumns(unionOfSweeps(all), f.columns)
	for i := range all {
		all[i].columns = columns
	}
	return all, err
}

// printColumns prints a table of the chosen columns.
func printColumns(ctx context.Context, ui *console, c *api.Client, s selection) error {
	t := newTable(ui.stdout, heads(s.columns)...)
	cells, shown := make([]string, len(s.columns)), int64(0)
	for tr, err := range s.trials(ctx, c) {
		if err != nil {
			return err
		}
		if shown++; s.query.Limit == tableRows+1 && shown > tableRows {
			break
		}
		for i, column := range s.columns {
			cells[i] = oneLine(column.cell(&tr))
		}
		t.row(cells...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if s.query.Limit == tableRows+1 && shown > tableRows {
		ui.say("… more; all of them with --limit 0")
	}
	return nil
}

func writeTrialsJSON(ctx context.Context, ui *console, c *api.Client, all ...selection) error {
	w := bufio.NewWriterSize(ui.stdout, 64<<10)
	out := jsonArray{w: w}
	for _, s := range all {
		for t, err := range s.trials(ctx, c) {
			if err != nil {
				return err
			}
			var v any = &t
			if s.columns != nil {
				v = columnValues{&t, s.columns}
			}
			if err := out.add(v); err != nil {
				return err
			}
		}
	}
	if err := out.close(); err != nil {
		return err
	}
	return w.Flush()
}

func printAttempts(ctx context.Context, ui *console, c *api.Client, id grid.TrialID) error {
	all, err := c.Trials().Attempts(ctx, id)
	if err != nil {
		return err
	}
	if ui.json {
		return ui.printJSON(all)
	}
	head := []string{"attempt", "outcome", "class", "exit", "started", "wall", "node", "run"}
	if slices.ContainsFunc(all, func(at api.Attempt) bool { return at.Bundle != "" }) {
		head = append(head, "files")
	}
	t := newTable(ui.stdout, head...)
	for _, at := range all {
		started := ""
		if at.Started != nil {
			started = at.Started.Local().Format(time.DateTime)
		}
		t.row(strconv.Itoa(at.Attempt), at.Outcome, string(at.Class), exitText(at.ExitCode), started,
			printable.Seconds(at.Usage.Wall), string(at.Node), at.Run, at.Bundle)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, at := range all {
		if text := lostOutputText(&at.Output); text != "" {
			fmt.Fprintf(ui.stdout, "attempt %d: %s\n", at.Attempt, text)
		}
		for _, g := range at.Usage.GPUs {
			fmt.Fprintf(ui.stdout, "attempt %d: used %s of %s at most, which was %d%% busy\n", at.Attempt,
				bytesText(g.Memory),
				g.UUID, g.Busy)
		}
		if at.Reason == "" {
			continue
		}
		fmt.Fprintf(ui.stdout, "attempt %d: %s\n", at.Attempt, oneLine(at.Reason))
		if hint := grid.FailureOf(at.Class).Hint; hint != "" {
			fmt.Fprintf(ui.stdout, "  %s\n", hint)
		}
	}
	return nil
}

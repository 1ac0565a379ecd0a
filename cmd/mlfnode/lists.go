package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node"
	"mlfnode/node/api"
)

func sweepsCommand(a *app) *cobra.Command {
	mine := false
	var states []string
	c := &cobra.Command{
		Use: "sweeps", Short: "List sweeps", Args: noArgument,
		Example: "  mlfnode sweeps\n  mlfnode sweeps --mine\n  mlfnode sweeps --state running,paused\n  mlfnode sweeps --json",
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range states {
				if !slices.Contains(sweepStates[:], grid.SweepState(s)) {
					return usage(fmt.Sprintf("%q is not a state of a sweep", s), "running, paused, cancelled or finished")
				}
			}
			err := a.read(c.Context(), func(s *node.Session) error { return listSweeps(c.Context(), a.console, s.Client(), mine, states) })
			if errors.Is(err, errNoState) {
				return printSweeps(a.console, nil)
			}
			return err
		},
	}
	c.Flags().BoolVar(&mine, "mine", false, "only the sweeps that you have submitted")
	c.Flags().StringSliceVar(&states, "state", nil, "only sweeps in this state: running, paused, cancelled, finished")
	a.jsonFlag(c)
	return c
}

var sweepStates = [...]grid.SweepState{grid.SweepRunning, grid.SweepPaused, grid.SweepCancelled, grid.SweepFinished}

// listSweeps lists sweeps; without states those in all states.
func listSweeps(ctx context.Context, ui *console, c *api.Client, mine bool, states []string) error {
	all, err := c.Sweeps(ctx)
	if err != nil {
		return err
	}
	if mine {
		owned := slices.ContainsFunc(all, func(v api.Sweep) bool { return v.Owner != "" })
		some := len(all) > 0
		all = slices.DeleteFunc(all, func(v api.Sweep) bool { return v.Owner != userName() })
		none := some && len(all) == 0 && !ui.json
		switch {
		case some && !owned:
			ui.say("note: no sweep says who submitted it: this program, or the master, was of an older version then")
		case none:
			ui.say("you have no sweeps; list all of them with: mlfnode sweeps")
		}
		if none {
			return nil
		}
	}
	if some := len(all) > 0; some && states != nil {
		all = slices.DeleteFunc(all, func(v api.Sweep) bool { return !slices.Contains(states, string(v.State)) })
		if len(all) == 0 && !ui.json {
			ui.say("no sweep is %s; list all of them with: mlfnode sweeps", strings.Join(states, " or "))
			return nil
		}
	}
	if err := printSweeps(ui, all); err != nil || ui.json || len(all) == 0 {
		return err
	}
	return printSweepNotes(ctx, ui, c, all)
}

// printSweeps prints sweeps, the newest last.
func printSweeps(ui *console, all []api.Sweep) error {
	if ui.json {
		out := jsonArray{w: ui.stdout}
		for i := range all {
			if err := out.add(&all[i]); err != nil {
				return err
			}
		}
		return out.end()
	}
	if len(all) == 0 {
		ui.say("there is no sweep yet; start one with: mlfnode sweep PROJECT")
		return nil
	}
	head := []string{"sweep", "state", "trials", "pending", "running", "succeeded", "failed", "cancelled", "submitted"}
	shared := slices.ContainsFunc(all, func(v api.Sweep) bool { return v.Owner != "" && v.Owner != userName() })
	if shared {
		head = append(head, "owner")
	}
	stopped := slices.ContainsFunc(all, func(v api.Sweep) bool { return v.Stopped > 0 })
	if stopped {
		head = slices.Insert(head, slices.Index(head, "cancelled"), "stopped")
	}
	t := newTable(ui.stdout, append(head, "name")...)
	for _, s := range all {
		n := func(v int64) string { return strconv.FormatInt(v, 10) }
		row := []string{string(s.Sweep), string(s.State), n(s.Count), n(s.Pending), n(s.Running), n(s.Succeeded), n(s.Failed)}
		if stopped {
			row = append(row, n(s.Stopped))
		}
		row = append(row, n(s.OnlyCancelled()), ago(s.Submitted))
		if shared {
			row = append(row, s.Owner)
		}
		t.row(append(row, s.Name)...)
	}
	return t.end()
}

// ago says how long ago something was that lies in the past, whatever the clocks of two machines, or of one that was set back, say.
func ago(t time.Time) string {
	if now := time.Now(); t.After(now) {
		t = now
	}
	return humanize.Time(t)
}

// printSweepNotes says what hinders a sweep, and what was or is about to be removed.
func printSweepNotes(ctx context.Context, ui *console, c *api.Client, all []api.Sweep) error {
	n, err := c.Node(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Problem != "" {
			ui.say("%s: %s", s.Sweep, oneLine(s.Problem))
		} else if s.Waits != "" {
			ui.say("%s waits: %s; for more: mlfnode trials --explain %s/INDEX", s.Sweep, s.Waits, s.Sweep)
		}
		for _, g := range s.Sharing {
			if s.Ended == nil {
				ui.say("%s: on %s %s", s.Sweep, oneLine(strings.TrimSpace(g.Model+" "+g.Value)), g.Text)
			}
		}
	}
	if near := nearRetention(&n, all, time.Now()); near != "" {
		ui.say("%s (node.yaml: retention)", near)
	}
	return nil
}

// nearRetention says which bounds of what is kept are reached, or at nine tenths, so that something was or is about to be removed. It is
// empty while there is room.
func nearRetention(n *api.Node, all []api.Sweep, now time.Time) string {
	var near []string
	ended, oldest := 0, time.Duration(0)
	for i := range all {
		if all[i].Ended != nil {
			ended++
			oldest = max(oldest, now.Sub(*all[i].Ended))
		}
	}
	if most := n.Retention.Sweeps; most > 0 && ended >= most-most/10 {
		near = append(near, fmt.Sprintf("only the newest %d ended sweeps are kept", most))
	}
	if age := n.Retention.Age; age > 0 && oldest >= age-age/10 {
		near = append(near, fmt.Sprintf("ended sweeps are removed after %s", age))
	}
	for _, s := range n.Store {
		if s.Name != "leases" && s.Limit > 0 && s.Bytes >= s.Limit-s.Limit/10 {
			near = append(near, fmt.Sprintf("%s %s of %s", s.Name, humanize.IBytes(uint64(s.Bytes)), humanize.IBytes(uint64(s.Limit))))
		}
	}
	return strings.Join(near, "; ")
}

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
	groups  groupFlags
}

func (f *listFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.states, "state", nil, "only trials in this state: pending, running, succeeded, failed, cancelled")
	c.Flags().StringVar(&f.class, "class", "", "only trials that failed in this `CLASS`, such as port or cuda_oom")
	c.Flags().StringArrayVar(&f.where, "where", nil, "only trials that have started and have this `KEY=VALUE` or KEY=LO..HI, of a parameter, a metric or node; repeatable, also for one key")
	c.Flags().StringVar(&f.sort, "sort", "index", "order by a metric or parameter, or index, state, attempts, started, ended, wall, cpu, memory, objective")
	c.Flags().BoolVar(&f.desc, "desc", false, "largest first")
	c.Flags().Int64Var(&f.limit, "limit", -1, "most rows to print; 0 is all (default 50 in a table, else all)")
	hideDefault(c.Flags(), "limit")
	c.Flags().Int64Var(&f.offset, "offset", 0, "how many rows to skip")
}

// query gives the selection; table says whether rows are limited unless told.
func (f *listFlags) query(table bool) (api.TrialQuery, error) {
	if f.class != "" {
		if err := checkClass(f.class); err != nil {
			return api.TrialQuery{}, err
		}
	}
	q := api.TrialQuery{Class: grid.Class(f.class), Sort: f.sort, Desc: f.desc, Limit: max(f.limit, 0), Offset: f.offset}
	for _, s := range f.states {
		if !slices.Contains(grid.States[:], grid.State(s)) {
			return q, usage(fmt.Sprintf("%q is not a state of a trial", s), "pending, running, succeeded, failed or cancelled")
		}
		q.States = append(q.States, grid.State(s))
	}
	if f.offset < 0 || f.limit < -1 {
		return q, usage("--limit and --offset take numbers from 0", "--limit 0 shows all")
	}
	if table && f.limit < 0 {
		q.Limit = tableRows + 1
	}
	return q, nil
}

// conditions reads what --where says of trials of a sweep, in the form of a TrialQuery's.
func (f *listFlags) conditions(v *api.Sweep) (url.Values, error) {
	if len(f.where) == 0 {
		return nil, nil
	}
	where := url.Values{}
	for _, text := range f.where {
		key, value, given := strings.Cut(text, "=")
		switch {
		case !given || key == "":
			return nil, usage(fmt.Sprintf("--where takes KEY=VALUE or KEY=LO..HI, not %q", text), "--where lr=0.1, --where loss=..0.5, --where node=hostB")
		case slices.Contains(v.Keys, key):
			where.Add("p["+key+"]", value)
		case slices.Contains(v.Metrics, key):
			where.Add("m["+key+"]", value)
		case key == "node":
			where.Add(key, value)
		default:
			known := slices.Concat(v.Keys, v.Metrics[:min(len(v.Metrics), 12)], []string{"node"})
			return nil, usage(fmt.Sprintf("%s has no parameter or metric %q", v.Sweep, key), "--where takes "+strings.Join(known, ", "))
		}
	}
	return where, nil
}

func trialsCommand(a *app) *cobra.Command {
	var f listFlags
	explain := false
	c := &cobra.Command{
		Use: "trials SWEEP[/TRIAL]", Short: "List the trials of a sweep, or the attempts of one", Args: oneArgument,
		Example: "  mlfnode trials chainer-1 --state failed\n  mlfnode trials chainer-1 --class cuda_oom\n  mlfnode trials last --sort wall --desc --limit 10\n  mlfnode trials chainer-1/17\n  mlfnode trials --explain chainer-1/17",
		RunE: func(c *cobra.Command, args []string) error {
			id, err := target(args[0])
			if err != nil {
				return err
			}
			q, err := f.query(!a.json)
			if err != nil {
				return err
			}
			if explain && id.Index < 0 {
				return usage("--explain takes one trial", fmt.Sprintf("name it as in: mlfnode trials --explain %s/0", id.Sweep))
			}
			return a.read(c.Context(), func(s *node.Session) error {
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
	f.add(c)
	c.Flags().BoolVar(&explain, "explain", false, "say why the trial waits, node by node")
	a.jsonFlag(c)
	return c
}

// printExplanation prints how a trial stands, and what is in its way.
func printExplanation(ctx context.Context, ui *console, c *api.Client, id grid.TrialID) error {
	e, err := c.Explain(ctx, id)
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

func target(arg string) (grid.TrialID, error) {
	id, err := grid.ParseTarget(arg)
	if err != nil {
		return id, usage(err.Error(), "list sweeps with: mlfnode sweeps")
	}
	return id, nil
}

func targets(args []string) ([]grid.TrialID, error) {
	ids := make([]grid.TrialID, len(args))
	for i, arg := range args {
		var err error
		if ids[i], err = target(arg); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func listTrials(ctx context.Context, ui *console, c *api.Client, id grid.SweepID, q api.TrialQuery, f *listFlags) error {
	v, err := c.Sweep(ctx, id)
	if err != nil {
		return err
	}
	if q.Where, err = f.conditions(&v); err != nil {
		return err
	}
	if ui.json {
		return writeTrialsJSON(ctx, ui, c, selection{&v, q})
	}
	t := trialTable{stdout: ui.stdout, client: c, sweep: &v}
	shown, lost := int64(0), lostOutput{}
	for tr, err := range c.Trials(ctx, v.Sweep, q) {
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
	if err := t.end(ctx); err != nil {
		return err
	}
	if q.Limit == tableRows+1 && shown > tableRows {
		ui.say("… more; all of them with --limit 0")
	}
	lost.print(ui)
	return printFailureGroups(ctx, ui, c, &v)
}

// trialTable prints trials. The first ones are kept until it is known whether there are more: with few there is a column of curves.
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
	t.begin()
	return t.add(ctx, tr)
}

func (t *trialTable) end(ctx context.Context) (err error) {
	if t.rows == nil {
		if t.curves, err = sparklines(ctx, t.client, t.sweep.Sweep, mainMetric(t.sweep), t.first); err != nil {
			return err
		}
		t.begin()
	}
	return t.rows.end()
}

// begin prints the head and the trials that were kept.
func (t *trialTable) begin() {
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

// reasonWidth is where a reason is cut in a table.
const reasonWidth = 160

func (t *trialTable) cells(tr *api.Trial) []string {
	wall := ""
	if tr.Ended != nil || tr.State == grid.Running && tr.Started != nil {
		wall = printable.Seconds(tr.Resources.Wall)
	}
	row := []string{strconv.FormatInt(tr.Index, 10), string(tr.State), strconv.Itoa(tr.Attempts), exitText(tr.ExitCode), wall}
	if len(t.curves) > 0 {
		row = append(row, t.curves[tr.Index])
	}
	row = append(row, string(tr.Node), fit(cause(tr.Reason), reasonWidth))
	for _, key := range t.sweep.Keys {
		row = append(row, paramText(tr.Params, key))
	}
	return row
}

// selection is trials of a sweep.
type selection struct {
	sweep *api.Sweep
	query api.TrialQuery
}

func writeTrialsJSON(ctx context.Context, ui *console, c *api.Client, all ...selection) error {
	w := bufio.NewWriterSize(ui.stdout, 64<<10)
	out := jsonArray{w: w}
	for _, s := range all {
		for t, err := range c.Trials(ctx, s.sweep.Sweep, s.query) {
			if err != nil {
				return err
			}
			if err := out.add(&t); err != nil {
				return err
			}
		}
	}
	if err := out.end(); err != nil {
		return err
	}
	return w.Flush()
}

func printAttempts(ctx context.Context, ui *console, c *api.Client, id grid.TrialID) error {
	all, err := c.Attempts(ctx, id)
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
		t.row(strconv.Itoa(at.Attempt), at.Outcome, string(at.Class), exitText(at.ExitCode), started, printable.Seconds(at.Resources.Wall), string(at.Node), at.Run, at.Bundle)
	}
	if err := t.end(); err != nil {
		return err
	}
	for _, at := range all {
		if text := outputText(&at.Output); text != "" {
			fmt.Fprintf(ui.stdout, "attempt %d: %s\n", at.Attempt, text)
		}
		for _, g := range at.Resources.GPUs {
			fmt.Fprintf(ui.stdout, "attempt %d: used %s of %s at most, which was %d%% busy\n", at.Attempt, bytesText(g.Memory), g.UUID, g.Busy)
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

func resultsCommand(a *app) *cobra.Command {
	var f listFlags
	c := &cobra.Command{
		Use: "results SWEEP...", Short: "Show the results of the trials: parameters, metrics, resources",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && looksLikeSweep(f.csv) {
				return usage("--csv takes the word after it for a file, and "+f.csv+" looks like a sweep",
					"put the sweeps first: mlfnode results "+strings.Join(append([]string{f.csv}, args...), " ")+" --csv all.csv; for a file of that name: --csv ./"+f.csv)
			}
			if names := f.sweepOf(args); len(names) < 2 {
				return oneArgument(c, names)
			}
			if f.csv == "" && !a.json {
				return usage("several sweeps go into CSV or JSON", "mlfnode results "+strings.Join(args, " ")+" --csv all.csv; mlfnode compare puts two beside each other")
			}
			for _, other := range []string{"best", "limit", "offset", "group-by", "over"} {
				if c.Flags().Changed(other) {
					return usage("several sweeps give all their trials, which can't be combined with --"+other, "name one sweep")
				}
			}
			return nil
		},
		Example: "  mlfnode results last\n  mlfnode results chainer-1 --best 5\n  mlfnode results chainer-1 --where opt=adam --where loss=..0.5\n  mlfnode results chainer-1 --group-by lr,opt\n  mlfnode results chainer-1 --over seed --csv means.csv\n  mlfnode results chainer-1 --csv results.csv\n  mlfnode results chainer-1 chainer-2 --csv both.csv\n  mlfnode results chainer-1 --parquet results.parquet",
		RunE: func(c *cobra.Command, args []string) error {
			ids, err := targets(f.sweepOf(args))
			if err != nil {
				return err
			}
			id := ids[0]
			if len(args) == 0 {
				f.csv = "-"
			}
			if a.json && f.csv != "" {
				return usage("results prints CSV or JSON, not both", "mlfnode results "+string(id.Sweep)+" --json")
			}
			if f.parquet == "-" {
				return usage("--parquet writes a file, not to the screen", "mlfnode results "+string(id.Sweep)+" --parquet results.parquet")
			}
			if f.parquet != "" && (a.json || f.csv != "" || f.groups.given()) {
				return usage("--parquet writes all trials and can't be combined with --csv, --json or groups", "mlfnode results "+string(id.Sweep)+" --parquet "+f.parquet)
			}
			if c.Flags().Changed("best") {
				if f.best < 1 {
					return usage("--best takes a number from 1", "--best 5")
				}
				for _, other := range []string{"sort", "desc", "limit", "offset", "state", "group-by", "over"} {
					if c.Flags().Changed(other) {
						return usage(fmt.Sprintf("--best orders trials by the task's objective and can't be combined with --%s", other), "--sort objective, with --limit, --state and the like")
					}
				}
			}
			for _, other := range []string{"state", "class", "where"} {
				if f.groups.given() && c.Flags().Changed(other) {
					return usage("groups hold all trials of their parameters and can't be combined with --"+other, "the columns failed and n count them")
				}
			}
			if f.groups.value != "" && !f.groups.given() {
				return usage("--value chooses what groups summarise", "use it with --group-by or --over, as in --group-by lr --value "+f.groups.value)
			}
			q, err := f.query(!a.json && f.csv == "" && f.parquet == "")
			if err != nil {
				return err
			}
			return a.read(c.Context(), func(s *node.Session) error {
				if len(ids) > 1 {
					return listSeveralResults(c.Context(), a.console, s.Client(), ids, q, &f)
				}
				return listResults(c.Context(), a.console, s.Client(), id.Sweep, q, &f)
			})
		},
	}
	f.add(c)
	c.Flags().Int64Var(&f.best, "best", 0, "the N best trials by the task's objective")
	c.Flags().StringSliceVar(&f.groups.by, "group-by", nil, "mean, standard deviation and best of the trials with the same values of these `PARAMETERS`")
	c.Flags().StringSliceVar(&f.groups.over, "over", nil, "the same, with all parameters but these `PARAMETERS`, such as a seed or repeat")
	c.Flags().StringVar(&f.groups.value, "value", "", "what groups summarise: a metric, wall, cpu or memory (default the objective, or the first metric)")
	c.Flags().StringVar(&f.csv, "csv", "", "CSV, to a file or to the screen")
	c.Flags().Lookup("csv").NoOptDefVal = "-"
	c.Flags().StringVar(&f.parquet, "parquet", "", "write a Parquet `FILE`, with typed columns")
	a.jsonFlag(c)
	return c
}

// sweepOf gives the argument that names the sweep. It may stand behind --csv, which takes a file or stands alone.
func (f *listFlags) sweepOf(args []string) []string {
	if len(args) == 0 && f.csv != "" && f.csv != "-" && !strings.ContainsAny(f.csv, "./") {
		return []string{f.csv}
	}
	return args
}

// looksLikeSweep reports whether a word is last, or has the form of a sweep's ID.
func looksLikeSweep(word string) bool {
	dash := strings.LastIndexByte(word, '-')
	_, err := strconv.ParseUint(word[dash+1:], 10, 64)
	return word == "last" || dash > 0 && err == nil && !strings.ContainsAny(word, "./")
}

func listResults(ctx context.Context, ui *console, client *api.Client, id grid.SweepID, q api.TrialQuery, f *listFlags) error {
	v, err := client.Sweep(ctx, id)
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
			return usage(fmt.Sprintf("task %s has no objective to rank trials by", v.Task), "--sort METRIC --desc, or set objective in project.yaml")
		}
		q = bestQuery(v.Objective, f.best)
	}
	q.Where = where
	if q.Sort == "objective" {
		if err := checkObjective(ctx, client, &v); err != nil {
			return err
		}
	}
	switch {
	case ui.json:
		return writeTrialsJSON(ctx, ui, client, selection{&v, q})
	case f.csv != "":
		return writeResultsCSV(ctx, ui, client, f.csv, selection{&v, q})
	case f.parquet != "":
		return writeParquetFile(ctx, client, &v, f.parquet, q)
	}
	if err := printResults(ctx, ui, client, &v, q); err != nil {
		return err
	}
	return printFailureGroups(ctx, ui, client, &v)
}

// writeResultsCSV writes the trials of sweeps to a file, - for the screen.
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

// listSeveralResults gives the trials of several sweeps, one sweep after the other.
func listSeveralResults(ctx context.Context, ui *console, client *api.Client, ids []grid.TrialID, q api.TrialQuery, f *listFlags) error {
	all := make([]selection, len(ids))
	for i, id := range ids {
		v, err := client.Sweep(ctx, id.Sweep)
		if err != nil {
			return err
		}
		all[i] = selection{&v, q}
		if all[i].query.Where, err = f.conditions(&v); err != nil {
			return err
		}
	}
	if ui.json {
		return writeTrialsJSON(ctx, ui, client, all...)
	}
	return writeResultsCSV(ctx, ui, client, f.csv, all...)
}

package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

const (
	// tableRows is how many rows a table shows unless told.
	tableRows = 50
	// cellWidth is where a cell of a table is cut.
	cellWidth = 40
)

// table prints rows in aligned columns.
type table struct {
	w     *tabwriter.Writer
	whole int // cell that is not cut, the last one; 0 for none
}

func newTable(w io.Writer, head ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(head...)
	return t
}

// newTextTable has text for people in its last column, which is not cut.
func newTextTable(w io.Writer, head ...string) *table {
	t := newTable(w, head...)
	t.whole = len(head) - 1
	return t
}

func (t *table) row(cells ...string) {
	clean := make([]string, len(cells))
	for i, c := range cells {
		clean[i] = strings.ReplaceAll(sanitize([]byte(c)), "\t", " ")
		if i == 0 || i != t.whole {
			clean[i] = fit(clean[i], cellWidth)
		}
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(clean, "\t"), "\t "))
}

func (t *table) end() error { return t.w.Flush() }

// printResults prints trials with their axes and metrics, the best one marked.
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
	var without missing
	for tr, err := range c.Trials(ctx, v.Sweep, q) {
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
	if err := t.end(); err != nil {
		return err
	}
	without.print(ui)
	if n := len(v.Bundles); n > 1 {
		ui.say("note: these trials ran %d versions of the files: %s; --json says which ran which", n, strings.Join(v.Bundles, ", "))
	}
	if q.Limit == tableRows+1 && shown > tableRows {
		fmt.Fprintf(ui.stdout, "… of %d trials; all of them with: mlfnode results %s --limit 0\n", v.Count, v.Sweep)
	}
	lost.print(ui)
	return nil
}

// columnNames gives the columns of parameters and metrics names that no other column has: a table with two columns of one name
// can't be read by a program. A parameter that has the name of a fixed column gets a prefix, and so does a metric that has the
// name of one or of a parameter: a program that is given --epoch may well report an epoch.
func columnNames(v *api.Sweep, fixed ...[]string) (keys, metrics []string) {
	taken := map[string]bool{}
	for _, name := range slices.Concat(fixed...) {
		taken[name] = true
	}
	unique := func(names []string, prefix string) []string {
		heads := make([]string, len(names))
		for i, name := range names {
			if !taken[name] {
				heads[i] = name
			}
		}
		for _, name := range heads {
			taken[name] = taken[name] || name != ""
		}
		for i, name := range names {
			for ; heads[i] == "" && name != ""; name = prefix + name {
				if !taken[name] {
					heads[i], taken[name] = name, true
				}
			}
		}
		return heads
	}
	return unique(v.Keys, "parameter:"), unique(v.Metrics, "metric:")
}

// missing counts the trials that succeeded without all that their task asks for.
type missing struct {
	count int64
	trial string
	what  string // of the first
}

func (m *missing) add(t *api.Trial) {
	if t.State != grid.Succeeded || t.Reason == "" {
		return
	}
	if m.count++; m.count == 1 {
		m.trial, m.what = t.Trial, t.Reason
	}
}

func (m *missing) print(ui *console) {
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
	for t, err := range c.Trials(ctx, v.Sweep, bestQuery(v.Objective, 1)) {
		if f, e := strconv.ParseFloat(string(t.Metrics[v.Objective.Metric]), 64); err == nil && (e != nil || math.IsInf(f, 0) || math.IsNaN(f)) {
			return -1, nil
		}
		return t.Index, err
	}
	return -1, nil
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
	return append(row, printable.Seconds(t.Resources.Wall), printable.Seconds(t.Resources.CPU), bytesText(t.Resources.Memory), string(t.Node))
}

func paramText(p grid.Params, key string) string { return paramValue(p, key).Text }

// metricText shortens numbers for a person.
func metricText(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
		return strconv.FormatFloat(f, 'g', 6, 64)
	}
	return metricCell(raw)
}

// metricCell gives a metric as it was written.
func metricCell(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func bytesText(n int64) string {
	if n <= 0 {
		return ""
	}
	return humanize.IBytes(uint64(n))
}

// oneLine joins the lines of a text, each as it would be shown.
func oneLine(s string) string { return strings.Join(shownLines(s), " · ") }

// shownLines are the lines of a text as they would be shown, without the empty ones.
func shownLines(s string) []string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(sanitize([]byte(line))); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// progressBar is a line as tqdm and its like draw it.
var progressBar = lazyregexp.New(`^(.{0,60}: *)?\d{1,3}%[|\s[]`)

// reasonLines are the lines of the reason of a failure, which has its cause in the first line and the last output behind it,
// without the progress bars among that.
func reasonLines(reason string) []string {
	lines := shownLines(reason)
	if len(lines) == 0 {
		return nil
	}
	return append(lines[:1], slices.DeleteFunc(lines[1:], progressBar.Get().MatchString)...)
}

// cause shortens the reason of a failure to its cause and the last line of output.
func cause(reason string) string {
	lines := reasonLines(reason)
	if len(lines) > 2 {
		lines = []string{lines[0], lines[len(lines)-1]}
	}
	return strings.Join(lines, " · ")
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// union has the parameters and metrics of all sweeps, in the order in which they are first met.
func union(all []selection) *api.Sweep {
	if len(all) == 1 {
		return all[0].sweep
	}
	v := &api.Sweep{}
	add := func(to, names []string) []string {
		for _, name := range names {
			if !slices.Contains(to, name) {
				to = append(to, name)
			}
		}
		return to
	}
	for _, s := range all {
		v.Keys, v.Metrics = add(v.Keys, s.sweep.Keys), add(v.Metrics, s.sweep.Metrics)
	}
	return v
}

// writeCSV writes every column that one of the sweeps has, and a row for each trial.
func writeCSV(ctx context.Context, w io.Writer, c *api.Client, all ...selection) error {
	v := union(all)
	out := csv.NewWriter(w)
	head := []string{"trial", "index", "state", "attempt", "attempts", "node", "exit_code", "reason"}
	tail := []string{"started", "ended", "wall_seconds", "cpu_seconds", "peak_memory_bytes"}
	keys, metrics := columnNames(v, head, tail)
	if err := out.Write(slices.Concat(head, keys, metrics, tail)); err != nil {
		return err
	}
	for _, s := range all {
		for t, err := range c.Trials(ctx, s.sweep.Sweep, s.query) {
			if err != nil {
				return err
			}
			if err := out.Write(csvRow(v, &t)); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// exitText is empty where there is no exit code.
func exitText(code *int) string {
	if code == nil {
		return ""
	}
	return strconv.Itoa(*code)
}

func csvRow(v *api.Sweep, t *api.Trial) []string {
	attempt, used := "", make([]string, 3) // empty for a trial that has not begun
	if t.Attempt > 0 {
		attempt = strconv.Itoa(t.Attempt)
	}
	if t.Started != nil {
		seconds := func(s float64) string { return strconv.FormatFloat(s, 'f', 6, 64) }
		used = []string{seconds(t.Resources.Wall), seconds(t.Resources.CPU), strconv.FormatInt(t.Resources.Memory, 10)}
	}
	row := []string{
		t.Trial, strconv.FormatInt(t.Index, 10), string(t.State), attempt, strconv.Itoa(t.Attempts),
		string(t.Node), exitText(t.ExitCode), t.Reason,
	}
	for _, key := range v.Keys {
		row = append(row, paramText(t.Params, key))
	}
	for _, name := range v.Metrics {
		row = append(row, metricCell(t.Metrics[name]))
	}
	return append(append(row, timeText(t.Started), timeText(t.Ended)), used...)
}

// jsonArray prints values as they come: the whole list is never in memory.
type jsonArray struct {
	w     io.Writer
	began bool
}

func (j *jsonArray) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n"
	if !j.began {
		sep, j.began = "[\n", true
	}
	_, err = fmt.Fprintf(j.w, "%s%s", sep, b)
	return err
}

func (j *jsonArray) end() error {
	text := "\n]\n"
	if !j.began {
		text = "[]\n"
	}
	_, err := io.WriteString(j.w, text)
	return err
}

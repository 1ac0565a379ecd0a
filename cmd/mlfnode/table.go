package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
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

// resultTable prints trials with their axes and metrics, the best one marked.
func (a *app) resultTable(ctx context.Context, c *api.Client, v *api.Sweep, q api.TrialQuery) error {
	best, err := bestIndex(ctx, c, v)
	if err != nil {
		return err
	}
	head := append(append([]string{"trial"}, v.Keys...), "state")
	tail := []string{"wall", "cpu", "memory", "node"}
	head = append(head, metricHeads(v.Metrics, head, tail)...)
	t := newTable(a.stdout, append(head, tail...)...)
	shown := int64(0)
	for tr, err := range c.Trials(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		if shown++; q.Limit == tableRows+1 && shown > tableRows {
			break
		}
		t.row(resultRow(v, &tr, tr.Index == best)...)
	}
	if err := t.end(); err != nil {
		return err
	}
	if q.Limit == tableRows+1 && shown > tableRows {
		fmt.Fprintf(a.stdout, "… of %d trials; all of them with: mlfnode results %s --limit 0\n", v.Count, v.Sweep)
	}
	return nil
}

// metricHeads gives the column names of metrics. One that an axis or a fixed column has too gets a prefix: a program that is
// given --epoch may well report an epoch, and a table with two columns of one name can't be read by a program.
func metricHeads(metrics []string, taken ...[]string) []string {
	heads := slices.Clone(metrics)
	for i, name := range heads {
		if slices.Contains(slices.Concat(taken...), name) {
			heads[i] = "metric:" + name
		}
	}
	return heads
}

func bestIndex(ctx context.Context, c *api.Client, v *api.Sweep) (int64, error) {
	if v.Objective == nil {
		return -1, nil
	}
	for t, err := range c.Trials(ctx, v.Sweep, bestQuery(v.Objective, 1)) {
		if err == nil && len(t.Metrics[v.Objective.Metric]) == 0 {
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
	return append(row, span(t.Resources.Wall), span(t.Resources.CPU), bytesText(t.Resources.Memory), string(t.Node))
}

func paramText(p grid.Params, key string) string {
	for _, q := range p {
		if q.Key == key {
			return q.Value.Text
		}
	}
	return ""
}

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

func oneLine(s string) string {
	return sanitize([]byte(strings.ReplaceAll(strings.TrimSpace(s), "\n", " · ")))
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// writeCSV writes every column there is, a row for each trial.
func writeCSV(ctx context.Context, w io.Writer, c *api.Client, v *api.Sweep, q api.TrialQuery) error {
	out := csv.NewWriter(w)
	head := append([]string{"trial", "index", "state", "attempt", "attempts", "node", "exit_code", "reason"}, v.Keys...)
	tail := []string{"started", "ended", "wall_seconds", "cpu_seconds", "peak_memory_bytes"}
	head = append(head, metricHeads(v.Metrics, head, tail)...)
	if err := out.Write(append(head, tail...)); err != nil {
		return err
	}
	for t, err := range c.Trials(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		if err := out.Write(csvRow(v, &t)); err != nil {
			return err
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
	row := []string{
		t.Trial, strconv.FormatInt(t.Index, 10), string(t.State), strconv.Itoa(t.Attempt), strconv.Itoa(t.Attempts),
		string(t.Node), exitText(t.ExitCode), t.Reason,
	}
	for _, key := range v.Keys {
		row = append(row, paramText(t.Params, key))
	}
	for _, name := range v.Metrics {
		row = append(row, metricCell(t.Metrics[name]))
	}
	seconds := func(s float64) string { return strconv.FormatFloat(s, 'f', 6, 64) }
	return append(row, timeText(t.Started), timeText(t.Ended), seconds(t.Resources.Wall), seconds(t.Resources.CPU),
		strconv.FormatInt(t.Resources.Memory, 10))
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

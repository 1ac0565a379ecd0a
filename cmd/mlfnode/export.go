package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"mlfnode/cmd/mlfnode/parquet"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// writeParquetFile writes the selected trials with the columns of the CSV table. A sweep does not
// record the types of its parameters and metrics: a value that does not fit in its column widens
// the column's type, and the file is written again.
func writeParquetFile(ctx context.Context, c *api.Client, v *api.Sweep, path string, q api.TrialQuery) error {
	columns := parquetColumns(v)
	return writeTableFile(v, path, "--parquet", func(w io.Writer) error {
		for {
			err := writeParquet(ctx, w, c, v, q, columns)
			if !errors.Is(err, errWider) {
				return err
			}
			file, ok := w.(interface {
				io.Seeker
				Truncate(size int64) error
			})
			if !ok {
				return errors.New("it is not a file")
			}
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			if err := file.Truncate(0); err != nil {
				return err
			}
		}
	})
}

// errWider is returned by writeParquet after it has widened the type of a column.
var errWider = errors.New("a value does not fit in its column")

func parquetColumns(v *api.Sweep) []parquet.Column {
	head := []parquet.Column{
		{Name: "trial", Kind: parquet.Text}, {Name: "index", Kind: parquet.Int}, {Name: "state", Kind: parquet.Text},
		{Name: "attempt", Kind: parquet.Int}, {Name: "attempts", Kind: parquet.Int}, {Name: "node", Kind: parquet.Text},
		{Name: "exit_code", Kind: parquet.Int}, {Name: "reason", Kind: parquet.Text},
	}
	tail := []parquet.Column{
		{Name: "started", Kind: parquet.Time}, {Name: "ended", Kind: parquet.Time},
		{Name: "wall_seconds", Kind: parquet.Double}, {Name: "cpu_seconds", Kind: parquet.Double},
		{Name: "peak_memory_bytes", Kind: parquet.Int},
	}
	names := func(columns []parquet.Column) (all []string) {
		for _, c := range columns {
			all = append(all, c.Name)
		}
		return all
	}
	keys, metrics := columnNames(v, names(head), names(tail))
	for _, name := range slices.Concat(keys, metrics) {
		head = append(head, parquet.Column{Name: name, Kind: parquet.Int})
	}
	return append(head, tail...)
}

// writeParquet writes the file, or widens the type of a column.
func writeParquet(ctx context.Context, w io.Writer, c *api.Client, v *api.Sweep, q api.TrialQuery, columns []parquet.Column) error {
	out := parquet.NewWriter(w, columns)
	for t, err := range c.Trials(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		row, wider := parquetRow(v, &t, columns)
		if wider {
			return errWider
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	return out.Close()
}

// parquetRow returns the values of a trial. wider reports whether it had to widen the type of a
// column.
func parquetRow(v *api.Sweep, t *api.Trial, columns []parquet.Column) (row []parquet.Value, wider bool) {
	text := func(s string) parquet.Value { return parquet.Value{Valid: s != "", Text: s} }
	count := func(n int64) parquet.Value { return parquet.Value{Valid: true, Int: n} }
	number := func(f float64) parquet.Value { return parquet.Value{Valid: true, Double: f} }
	moment := func(t *time.Time) parquet.Value {
		if t == nil {
			return parquet.Value{}
		}
		return count(t.UnixMicro())
	}
	attempt, used := parquet.Value{}, make([]parquet.Value, 3) // missing for a trial that has not begun
	if t.Attempt > 0 {
		attempt = count(int64(t.Attempt))
	}
	if t.Started != nil {
		used = []parquet.Value{number(t.Usage.Wall), number(t.Usage.CPU), count(t.Usage.Memory)}
	}
	exit := parquet.Value{}
	if t.ExitCode != nil {
		exit = count(int64(*t.ExitCode))
	}
	row = append(row, text(t.Trial), count(t.Index), text(string(t.State)), attempt, count(int64(t.Attempts)),
		text(string(t.Node)), exit, text(t.Reason))
	add := func(given bool, s string, isNumber bool) {
		c := &columns[len(row)]
		if !given {
			row = append(row, parquet.Value{})
			return
		}
		value, ok := parquetValue(c.Kind, s, isNumber)
		for ; !ok; value, ok = parquetValue(c.Kind, s, isNumber) {
			c.Kind, wider = c.Kind+1, true
		}
		row = append(row, value)
	}
	for _, key := range v.Keys {
		value := paramValue(t.Params, key)
		add(t.Params.Find(key) != nil, value.Text, value.Kind == space.Number)
	}
	for _, name := range v.Metrics {
		raw := t.Metrics[name]
		var s string
		quoted := json.Unmarshal(raw, &s) == nil
		add(len(raw) > 0 && string(raw) != "null", metricCell(raw),
			!quoted || slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, s))
	}
	return append(append(row, moment(t.Started), moment(t.Ended)), used...), wider
}

// parquetValue parses a value for a column; ok is false if it does not fit, which never happens for
// text.
func parquetValue(kind parquet.Kind, s string, isNumber bool) (value parquet.Value, ok bool) {
	switch kind {
	case parquet.Int:
		n, err := strconv.ParseInt(s, 10, 64)
		return parquet.Value{Valid: true, Int: n}, err == nil && isNumber
	case parquet.Double:
		f, err := strconv.ParseFloat(s, 64)
		return parquet.Value{Valid: true, Double: f}, (err == nil || math.IsInf(f, 0)) && isNumber
	}
	return parquet.Value{Valid: true, Text: s}, true
}

// unionOfSweeps returns a sweep with the parameters and metrics of all sweeps, in the order in
// which they first occur.
func unionOfSweeps(all []selection) *api.Sweep {
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
	v := unionOfSweeps(all)
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

func csvRow(v *api.Sweep, t *api.Trial) []string {
	attempt, used := "", make([]string, 3) // empty for a trial that has not begun
	if t.Attempt > 0 {
		attempt = strconv.Itoa(t.Attempt)
	}
	if t.Started != nil {
		seconds := func(s float64) string { return strconv.FormatFloat(s, 'f', 6, 64) }
		used = []string{seconds(t.Usage.Wall), seconds(t.Usage.CPU), strconv.FormatInt(t.Usage.Memory, 10)}
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

// writeCSVFile writes the table of sweeps to a file.
func writeCSVFile(ctx context.Context, c *api.Client, path string, all ...selection) error {
	return writeTableFile(all[0].sweep, path, "--csv", func(w io.Writer) error { return writeCSV(ctx, w, c, all...) })
}

// writeTableFile writes a table of a sweep to the file that a flag names.
func writeTableFile(v *api.Sweep, path, flag string, write func(io.Writer) error) error {
	err := writeWhole(path, write)
	if err != nil {
		return failed(fmt.Sprintf("the table can't be written to %s: %v", path, withoutPath(err)),
			fmt.Sprintf("the sweep is %s; write the table elsewhere with: mlfnode results %s %s=FILE", v.State, v.Sweep, flag))
	}
	return nil
}

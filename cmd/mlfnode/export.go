package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"

	"mlfnode/cmd/mlfnode/parquet"
	"mlfnode/grid/problem"
	"mlfnode/node/api"
)

// writeParquetFile writes the selected trials. A value that does not fit in its column widens the
// column's type, and the file is written again.
func writeParquetFile(ctx context.Context, c *api.Client, path string, s selection) error {
	columns := s.columns
	if columns == nil {
		columns = allColumns(s.sweep)
	}
	return writeTableFile(s.sweep, path, "--parquet", func(w io.Writer) error {
		for {
			err := writeParquet(ctx, w, c, s, columns)
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

// writeParquet writes the file, or widens the type of a column.
func writeParquet(ctx context.Context, w io.Writer, c *api.Client, s selection, columns []trialColumn) error {
	kinds := make([]parquet.Column, len(columns))
	for i, column := range columns {
		kinds[i] = parquet.Column{Name: column.head, Kind: column.kind}
	}
	out := parquet.NewWriter(w, kinds)
	for t, err := range s.trials(ctx, c) {
		if err != nil {
			return err
		}
		row, wider := parquetRow(&t, columns)
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
func parquetRow(t *api.Trial, columns []trialColumn) (row []parquet.Value, wider bool) {
	for i := range columns {
		c := &columns[i]
		value, ok := c.value(t, c.kind)
		for ; !ok; value, ok = c.value(t, c.kind) {
			c.kind, wider = c.kind+1, true
		}
		row = append(row, value)
	}
	return row, wider
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

// writeCSV writes the chosen columns, or every column that one of the sweeps has, and a row for
// each trial.
func writeCSV(ctx context.Context, w io.Writer, c *api.Client, all ...selection) error {
	columns := all[0].columns
	if columns == nil {
		columns = allColumns(unionOfSweeps(all))
	}
	out := csv.NewWriter(w)
	if err := out.Write(heads(columns)); err != nil {
		return err
	}
	row := make([]string, len(columns))
	for _, s := range all {
		for t, err := range s.trials(ctx, c) {
			if err != nil {
				return err
			}
			for i, column := range columns {
				row[i] = column.cell(&t)
			}
			if err := out.Write(row); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// writeCSVFile writes the table of sweeps to a file.
func writeCSVFile(ctx context.Context, c *api.Client, path string, all ...selection) error {
	return writeTableFile(all[0].sweep, path, "--csv", func(w io.Writer) error { return writeCSV(ctx, w, c, all...) })
}

// writeTableFile writes a table of a sweep to the file that a flag names.
func writeTableFile(v *api.Sweep, path, flag string, write func(io.Writer) error) error {
	err := writeWhole(path, write)
	if err != nil {
		return failed(fmt.Sprintf("the table can't be written to %s: %v", path, problem.WithoutPath(err)),
			fmt.Sprintf("the sweep is %s; write the table elsewhere with: mlfnode results %s %s=FILE", v.State,
				v.Sweep, flag))
	}
	return nil
}

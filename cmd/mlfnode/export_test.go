package main

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/parquet"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// TestParquetColumns finds the kind of a column by the values that come, whatever comes first.
func TestParquetColumns(t *testing.T) {
	number := func(text string) space.Value { return space.Value{Text: text, Kind: space.Number} }
	word := func(text string) space.Value { return space.Value{Text: text} }
	for _, tt := range []struct {
		name    string
		params  []space.Value
		metrics []string
		param   parquet.Kind
		metric  parquet.Kind
	}{
		{"whole numbers", []space.Value{number("1"), number("-9223372036854775808")}, []string{"3", "4"},
			parquet.Int, parquet.Int},
		{"numbers", []space.Value{number("1"), number("1e-3")}, []string{"3", "0.5"}, parquet.Double, parquet.Double},
		{"great numbers", []space.Value{number("9223372036854775808")}, []string{"1e999"},
			parquet.Double, parquet.Double},
		{"no numbers at the end", []space.Value{number("1"), number("0.5"), word("auto")},
			[]string{"1", `"NaN"`, `"Infinity"`}, parquet.Text, parquet.Double},
		{"digits that are text", []space.Value{word("007")}, []string{`"12"`}, parquet.Text, parquet.Text},
		{"flags", []space.Value{{Text: "true", Kind: space.True}, number("1")}, []string{"null", "true"},
			parquet.Text, parquet.Text},
		{"lists", []space.Value{{Text: "[1,2]", Kind: space.List}}, []string{"null"}, parquet.Text, parquet.Int},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &api.Sweep{Keys: []string{"p", "absent"}, Metrics: []string{"m"}}
			columns := allColumns(v)
			trials := make([]api.Trial, max(len(tt.params), len(tt.metrics)))
			for i := range trials {
				if i < len(tt.params) {
					trials[i].Params = space.Params{{Key: "p", Value: tt.params[i]}}
				}
				if i < len(tt.metrics) {
					trials[i].Metrics = grid.Metric{"m": json.RawMessage(tt.metrics[i])}
				}
			}
			rows := [][]parquet.Value{}
			for again := true; again; { // as the file is begun again
				again, rows = false, rows[:0]
				for i := range trials {
					row, wider := parquetRow(&trials[i], columns)
					again, rows = again || wider, append(rows, row)
				}
			}
			const param, metric = 8, 10
			if columns[param].kind != tt.param || columns[metric].kind != tt.metric || len(columns) != len(rows[0]) {
				t.Errorf("got the kinds %v and %v, want %v and %v", columns[param].kind, columns[metric].kind,
					tt.param, tt.metric)
			}
			for i, row := range rows {
				given := i < len(tt.metrics) && tt.metrics[i] != "null"
				if row[param].Valid != (i < len(tt.params)) || row[param+1].Valid || row[metric].Valid != given {
					t.Errorf("row %d: got %+v", i, row)
				}
				if tt.metric == parquet.Double && i < len(tt.metrics) && tt.metrics[i] == `"NaN"` &&
					!math.IsNaN(row[metric].Double) {
					t.Errorf("row %d: got %v, want NaN", i, row[metric])
				}
			}
		})
	}
}

// TestTablesBegun leaves out what a trial that has not begun does not have.
func TestTablesBegun(t *testing.T) {
	v, now := &api.Sweep{}, time.Now()
	columns := allColumns(v)
	pending, running := api.Trial{}, api.Trial{Attempt: 1, Attempts: 1, Started: &now}
	for _, tt := range []struct {
		trial *api.Trial
		want  bool
	}{{&pending, false}, {&running, true}} {
		row, _ := parquetRow(tt.trial, columns)
		for i, c := range columns {
			cell := c.cell(tt.trial)
			if slices.Contains([]string{"attempt", "started", "wall_seconds", "cpu_seconds", "peak_memory_bytes"},
				c.head) && row[i].Valid != tt.want {
				t.Errorf("begun %v: %s is there: %v", tt.want, c.head, row[i].Valid)
			}
			if given := cell != ""; given != row[i].Valid && c.kind != parquet.Text {
				t.Errorf("begun %v: %s in CSV is %q, in Parquet it is there: %v", tt.want, c.head, cell, row[i].Valid)
			}
		}
	}
}

// TestSparklineExtremes draws the least and the greatest numbers.
func TestSparklineExtremes(t *testing.T) {
	for _, top := range []float64{math.SmallestNonzeroFloat64, math.MaxFloat64} {
		if got := []rune(sparkline([]float64{0, top, 0})); len(got) != 3 {
			t.Errorf("%g: got %q", top, string(got))
		}
	}
}

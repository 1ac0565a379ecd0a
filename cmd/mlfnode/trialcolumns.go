package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cmd/mlfnode/parquet"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
)

// trialColumn is a column of a table of trials.
type trialColumn struct {
	head   string
	fields []string // of the API's tables, that the cells are made of

	cell func(*api.Trial) string // in CSV
	json func(*api.Trial) any
	// kind is the type of the column in Parquet, and value a cell there. A sweep does not record
	// the types of its parameters and metrics: ok is false for a value that does not fit in kind.
	kind  parquet.Kind
	value func(t *api.Trial, kind parquet.Kind) (v parquet.Value, ok bool)
}

func textColumn(name, field string, of func(*api.Trial) string) trialColumn {
	return trialColumn{
		head: name, fields: []string{field}, cell: of, json: func(t *api.Trial) any { return of(t) },
		kind: parquet.Text,
		value: func(t *api.Trial, _ parquet.Kind) (parquet.Value, bool) {
			return parquet.Value{Valid: of(t) != "", Text: of(t)}, true
		},
	}
}

// countColumn has integers, where given says so, or where given is nil.
func countColumn(name string, of func(*api.Trial) int64, given func(*api.Trial) bool, fields ...string) trialColumn {
	return trialColumn{
		head: name, fields: fields, kind: parquet.Int, json: func(t *api.Trial) any { return of(t) },
		cell: func(t *api.Trial) string {
			if given != nil && !given(t) {
				return ""
			}
			return strconv.FormatInt(of(t), 10)
		},
		value: func(t *api.Trial, _ parquet.Kind) (parquet.Value, bool) {
			if given != nil && !given(t) {
				return parquet.Value{}, true
			}
			return parquet.Value{Valid: true, Int: of(t)}, true
		},
	}
}

// secondsColumn has durations, of trials that have begun.
func secondsColumn(name string, of func(*api.Trial) float64) trialColumn {
	return trialColumn{
		head: name, fields: []string{name, "started"}, kind: parquet.Double,
		json: func(t *api.Trial) any { return of(t) },
		cell: func(t *api.Trial) string {
			if !hasStarted(t) {
				return ""
			}
			return strconv.FormatFloat(of(t), 'f', 6, 64)
		},
		value: func(t *api.Trial, _ parquet.Kind) (parquet.Value, bool) {
			return parquet.Value{Valid: hasStarted(t), Double: of(t)}, true
		},
	}
}

func timeColumn(name string, of func(*api.Trial) *time.Time) trialColumn {
	return trialColumn{
		head: name, fields: []string{name}, kind: parquet.Time, json: func(t *api.Trial) any { return of(t) },
		cell: func(t *api.Trial) string {
			if of(t) == nil {
				return ""
			}
			return of(t).Format(time.RFC3339Nano)
		},
		value: func(t *api.Trial, _ parquet.Kind) (parquet.Value, bool) {
			if of(t) == nil {
				return parquet.Value{}, true
			}
			return parquet.Value{Valid: true, Int: of(t).UnixMicro()}, true
		},
	}
}

func parameterColumn(head, key string) trialColumn {
	return trialColumn{
		head: head, fields: []string{"p[" + key + "]"}, kind: parquet.Int,
		cell: func(t *api.Trial) string { return paramText(t.Params, key) },
		json: func(t *api.Trial) any {
			if p := t.Params.Find(key); p != nil {
				return p.Value
			}
			return nil
		},
		value: func(t *api.Trial, kind parquet.Kind) (parquet.Value, bool) {
			if t.Params.Find(key) == nil {
				return parquet.Value{}, true
			}
			v := paramValue(t.Params, key)
			return parquetValue(kind, v.Text, v.Kind == space.Number)
		},
	}
}

func metricColumn(head, name string) trialColumn {
	return trialColumn{
		head: head, fields: []string{"m[" + name + "]"}, kind: parquet.Int,
		cell: func(t *api.Trial) string { return metricCell(t.Metrics[name]) },
		json: func(t *api.Trial) any { return t.Metrics[name] },
		value: func(t *api.Trial, kind parquet.Kind) (parquet.Value, bool) {
			raw := t.Metrics[name]
			if len(raw) == 0 || string(raw) == "null" {
				return parquet.Value{}, true
			}
			var s string
			quoted := json.Unmarshal(raw, &s) == nil
			return parquetValue(kind, metricCell(raw), !quoted ||
				slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, s))
		},
	}
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

func hasStarted(t *api.Trial) bool { return t.Started != nil }

// fixedColumns returns the columns that tables of all sweeps have, before and after those of the
// parameters and metrics. class is only shown on request.
func fixedColumns() (head []trialColumn, class trialColumn, tail []trialColumn) {
	exit := countColumn("exit_code", func(t *api.Trial) int64 { return int64(*t.ExitCode) },
		func(t *api.Trial) bool { return t.ExitCode != nil }, "exit_code")
	exit.json = func(t *api.Trial) any { return t.ExitCode }
	class = textColumn("class", "class", func(t *api.Trial) string { return string(t.Class) })
	head = []trialColumn{
		textColumn("trial", "index", func(t *api.Trial) string { return t.Trial }),
		countColumn("index", func(t *api.Trial) int64 { return t.Index }, nil, "index"),
		textColumn("state", "state", func(t *api.Trial) string { return string(t.State) }),
		countColumn("attempt", func(t *api.Trial) int64 { return int64(t.Attempt) },
			func(t *api.Trial) bool { return t.Attempt > 0 }, "attempt"),
		countColumn("attempts", func(t *api.Trial) int64 { return int64(t.Attempts) }, nil, "attempts"),
		textColumn("node", "node", func(t *api.Trial) string { return string(t.Node) }),
		exit,
		textColumn("reason", "reason", func(t *api.Trial) string { return t.Reason }),
	}
	tail = []trialColumn{
		timeColumn("started", func(t *api.Trial) *time.Time { return t.Started }),
		timeColumn("ended", func(t *api.Trial) *time.Time { return t.Ended }),
		secondsColumn("wall_seconds", func(t *api.Trial) float64 { return t.Usage.Wall }),
		secondsColumn("cpu_seconds", func(t *api.Trial) float64 { return t.Usage.CPU }),
		countColumn("peak_memory_bytes", func(t *api.Trial) int64 { return t.Usage.Memory }, hasStarted,
			"peak_memory_bytes", "started"),
	}
	return head, class, tail
}

func heads(columns []trialColumn) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.head
	}
	return names
}

// allColumns returns the columns of the CSV table of a sweep.
func allColumns(v *api.Sweep) []trialColumn {
	all, _, tail := fixedColumns()
	keys, metrics := columnNames(v, heads(all), heads(tail))
	for i, key := range v.Keys {
		all = append(all, parameterColumn(keys[i], key))
	}
	for i, name := range v.Metrics {
		all = append(all, metricColumn(metrics[i], name))
	}
	return append(all, tail...)
}

// chooseColumns returns the named columns: by the name that they have in the CSV table, or in the
// API, which calls those of parameters p[KEY] and those of metrics m[NAME].
func chooseColumns(v *api.Sweep, names []string) ([]trialColumn, error) {
	all := allColumns(v)
	_, class, _ := fixedColumns()
	all = append(all, class)
	chosen := make([]trialColumn, len(names))
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, usage(fmt.Sprintf("--columns names %s twice", name), "name each column once")
		}
		at := slices.IndexFunc(all, func(c trialColumn) bool {
			return c.head == name || strings.HasSuffix(c.fields[0], "]") && c.fields[0] == name
		})
		if at < 0 {
			hint := "the columns are " + strings.Join(heads(all), ", ")
			if near := problem.Nearest(name, heads(all)); len(near) > 0 {
				hint = "did you mean " + strings.Join(near, " or ") + "?"
			}
			what := string(v.Sweep)
			if what == "" {
				what = "none of these sweeps"
			}
			return nil, usage(fmt.Sprintf("the trials of %s have no column %q", what, name), hint)
		}
		chosen[i] = all[at]
		chosen[i].head = name
	}
	return chosen, nil
}

// columnValues is the chosen columns of a trial, which are encoded in their order.
type columnValues struct {
	trial   *api.Trial
	columns []trialColumn
}

// MarshalJSON implements json.Marshaler.
func (r columnValues) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, c := range r.columns {
		head, err := json.Marshal(c.head)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(c.json(r.trial))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, head...), ':'), value...)
	}
	return append(b, '}'), nil
}

// maxFieldsText bounds the names of the fields in one request, whose query is bounded.
const maxFieldsText = 4 << 10

// trials streams the selected trials, with at least what the columns are made of.
func (s *selection) trials(ctx context.Context, c *api.Client) iter.Seq2[api.Trial, error] {
	fields, length := []string{"index"}, 0
	for _, column := range s.columns {
		for _, name := range column.fields {
			key, isKey := strings.CutPrefix(name, "p[")
			metric, isMetric := strings.CutPrefix(name, "m[")
			lacks := isKey && !slices.Contains(s.sweep.Keys, strings.TrimSuffix(key, "]")) ||
				isMetric && !slices.Contains(s.sweep.Metrics, strings.TrimSuffix(metric, "]"))
			if !lacks && !slices.Contains(fields, name) {
				fields, length = append(fields, name), length+len("&field=")+len(url.QueryEscape(name))
			}
		}
	}
	if s.columns == nil || len(fields) > api.MaxFieldsQuery || length > maxFieldsText {
		return c.Trials().List(ctx, s.sweep.Sweep, s.query)
	}
	return func(yield func(api.Trial, error) bool) {
		for t, err := range c.Trials().ListFields(ctx, s.sweep.Sweep, s.query, fields) {
			t.Trial = fmt.Sprintf("%s/%d", s.sweep.Sweep, t.Index)
			if !yield(t, err) {
				return
			}
		}
	}
}

// completeColumns completes the names of columns: those of the sweep that the command line names,
// or else those that all sweeps have.
func completeColumns(to *connector) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var v api.Sweep
		if len(args) > 0 {
			_ = askForCompletion(c.Context(), to, func(ctx context.Context, s *node.Session) (err error) {
				id, err := parseTarget(args[0])
				if err == nil {
					v, err = s.Client().Sweeps().Get(ctx, id.Sweep)
				}
				return err
			}) // without an answer, the fixed ones are offered
		}
		before := begun[:strings.LastIndexByte(begun, ',')+1]
		var list []cobra.Completion
		for _, name := range heads(allColumns(&v)) {
			if !slices.Contains(strings.Split(before, ","), name) {
				list = append(list, before+name)
			}
		}
		return list,
			cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder | cobra.ShellCompDirectiveNoSpace
	}
}

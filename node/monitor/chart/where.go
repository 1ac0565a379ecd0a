package chart

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
)

// Where is a filter of trials. A trial has to match one condition of every part; a part is a
// parameter, a metric, the states and so on. The zero Where selects all.
type Where struct {
	parts []condition
}

// condition is one part of a filter with its alternatives.
type condition struct {
	kind  string // p, d, m, state, class, cause, node or t
	key   string // of a parameter or a metric
	texts []string
}

// maxConditions bounds the total number of alternatives in a filter.
const maxConditions = 1000

// ParseWhere parses a filter from a query: p[KEY] is a value of a parameter or a range LO..HI of
// numbers, d[KEY] positions of values, m[NAME] a range of a metric, state, class, cause, node, and
// t a range of seconds since the first event. Ends are part of a range, and either may be left out.
// Other keys are skipped.
func ParseWhere(q url.Values) (Where, error) {
	var w Where
	n := 0
	for key, texts := range q {
		kind, rest, bracket := strings.Cut(key, "[")
		name, closed := strings.CutSuffix(rest, "]")
		switch kind {
		case "p", "d", "m":
			if !bracket || !closed {
				continue
			}
		case "state", "class", "cause", "node", "t":
			if bracket {
				continue
			}
		default:
			continue
		}
		c := condition{kind: kind, key: name, texts: slices.Clone(texts)}
		slices.Sort(c.texts)
		c.texts = slices.Compact(c.texts)
		if n += len(c.texts); n > maxConditions {
			return Where{}, &Error{fmt.Sprintf("the filter has more than %d conditions", maxConditions),
				"use ranges, as d[KEY]=0..99"}
		}
		if err := c.check(); err != nil {
			return Where{}, err
		}
		w.parts = append(w.parts, c)
	}
	slices.SortFunc(w.parts, func(a, b condition) int {
		return strings.Compare(a.kind+"\x00"+a.key, b.kind+"\x00"+b.key)
	})
	return w, nil
}

// Query is the inverse of ParseWhere.
func (w Where) Query() url.Values {
	q := url.Values{}
	for _, c := range w.parts {
		q[c.name()] = c.texts
	}
	return q
}

// NeedsColumns reports whether the filter has a part other than states and classes.
func (w Where) NeedsColumns() bool {
	return slices.ContainsFunc(w.parts, func(c condition) bool { return c.kind != "state" && c.kind != "class" })
}

// Metrics lists the metrics that the filter uses.
func (w Where) Metrics() []string {
	var names []string
	for _, c := range w.parts {
		if c.kind == "m" {
			names = append(names, c.key)
		}
	}
	return names
}

func (c *condition) name() string {
	switch c.kind {
	case "p", "d", "m":
		return c.kind + "[" + c.key + "]"
	}
	return c.kind
}

// check refuses parts that can't be valid for any sweep.
func (c *condition) check() error {
	var states []string
	for _, s := range grid.States {
		states = append(states, string(s))
	}
	for _, text := range c.texts {
		ok := true
		switch c.kind {
		case "d", "m", "t":
			_, ok = parseSpan(text)
		case "cause":
			_, err := strconv.ParseUint(text, 10, 8)
			ok = err == nil
		case "state":
			ok = slices.Contains(states, text)
		}
		if !ok {
			return &Error{fmt.Sprintf("%s=%.60s can't be understood", c.name(), text),
				"give d, m and t as LO..HI, cause as a number, and state as one of " + strings.Join(states, ", ")}
		}
	}
	return nil
}

// span is a range of numbers with both ends.
type span struct{ lo, hi float64 }

// parseSpan reads LO..HI, LO.., ..HI or one number.
func parseSpan(text string) (span, bool) {
	lo, hi, found := strings.Cut(text, "..")
	s := span{math.Inf(-1), math.Inf(1)}
	end := func(dest *float64, text string) bool {
		f, err := strconv.ParseFloat(text, 64)
		*dest = f
		return err == nil && !math.IsNaN(f)
	}
	if !found {
		ok := end(&s.lo, lo)
		s.hi = s.lo
		return s, ok
	}
	ok := lo+hi != "" && (lo == "" || end(&s.lo, lo)) && (hi == "" || end(&s.hi, hi))
	return s, ok
}

// filter is a Where that is bound to a sweep.
type filter []test

type test struct {
	name string
	keep func(dest, rows []int32) int
}

func (w Where) compile(v *View) (filter, error) {
	var f filter
	for _, c := range w.parts {
		keep, err := c.compile(v)
		if err != nil {
			return nil, err
		}
		f = append(f, test{c.name() + "=" + strings.Join(c.texts, "|"), keep})
	}
	return f, nil
}

func (f filter) keep(dest, rows []int32) int {
	n := copy(dest, rows)
	for k := range f {
		n = f[k].keep(dest, dest[:n])
	}
	return n
}

// rowFilter writes the rows that satisfy a condition to dest, in their order, and returns how many
// there are. dest may be rows; several goroutines call it.
type rowFilter func(dest, rows []int32) int

// matching returns a rowFilter for a predicate on rows.
func matching(match func(row int32) bool) rowFilter {
	return func(dest, rows []int32) (n int) {
		for _, r := range rows {
			if match(r) {
				dest[n] = r
				n++
			}
		}
		return n
	}
}

// lookup returns a rowFilter for a table of the levels to keep.
func lookup[T uint8 | uint16](column []T, table []bool) rowFilter {
	return func(dest, rows []int32) (n int) {
		for _, r := range rows {
			dest[n] = r
			if table[column[r]] {
				n++
			}
		}
		return n
	}
}

func (c *condition) compile(v *View) (rowFilter, error) {
	d := v.d
	switch c.kind {
	case "p", "d":
		return c.parameter(v)
	case "m":
		column := d.Metrics[c.key]
		if column == nil {
			return nil, &Error{fmt.Sprintf("the sweep has no metric %q among the first ones", c.key),
				"the sweep's answer lists its metrics"}
		}
		return c.spans(column), nil
	case "t":
		return c.spans(d.Started), nil
	}
	codes := make([]bool, tableSize)
	column := d.State
	for _, text := range c.texts {
		code := -1
		switch c.kind {
		case "state":
			code = slices.Index(grid.States[:], grid.State(text)) + 1
		case "class":
			column = d.Class
			code = slices.Index(d.Classes, grid.Class(text)) + 1
		case "cause":
			column = d.Cause
			code, _ = strconv.Atoi(text)
		case "node":
			code = slices.Index(d.Nodes, grid.NodeID(text)) + 1
		}
		if code > 0 && code < len(codes) { // a row without a value does not match
			codes[code] = true
		}
	}
	if c.kind == "node" {
		return lookup(d.Node, codes), nil
	}
	return lookup(column, codes), nil
}

func (c *condition) spans(column []float32) rowFilter {
	spans := c.parse()
	for i, s := range spans { // as values are stored, so that a bound is included
		spans[i] = span{float64(float32(s.lo)), float64(float32(s.hi))}
	}
	return matching(func(row int32) bool { return contains(spans, float64(column[row])) })
}

// parse returns the ranges among the alternatives.
func (c *condition) parse() []span {
	var spans []span
	for _, text := range c.texts {
		if s, ok := parseSpan(text); ok {
			spans = append(spans, s)
		}
	}
	return spans
}

func contains(spans []span, f float64) bool {
	for _, s := range spans {
		if f >= s.lo && f <= s.hi {
			return true
		}
	}
	return false
}

// tableSize is the maximum number of values of an axis that is looked up in a table.
const tableSize = 1 << 16

func (c *condition) parameter(v *View) (rowFilter, error) {
	d := v.d
	k := slices.Index(d.Space.Keys(), c.key)
	if k < 0 {
		return nil, &Error{fmt.Sprintf("the sweep has no parameter %q", c.key),
			"its parameters are " + strings.Join(d.Space.Keys(), ", ")}
	}
	values, spans := d.Space.Values()[k], c.parse()
	has := func(position int64) bool {
		v := values.At(position)
		return slices.Contains(c.texts, label(v)) || contains(spans, float64(number(v)))
	}
	if c.kind == "d" {
		has = func(position int64) bool { return contains(spans, float64(position)) }
	}
	if values.Count() > tableSize && c.kind == "p" {
		has = c.positions(values, spans).Has
	}
	switch a := v.axis(c.key); {
	case a < 0:
		only := has(0)
		return matching(func(int32) bool { return only }), nil
	case v.axes[a].Size <= maxLevels: // each level is one position
		table := make([]bool, math.MaxUint8+1)
		for l := range v.axes[a].Levels {
			table[l] = has(int64(l))
		}
		return lookup(v.levels[a], table), nil
	case v.long[a] != nil:
		table := make([]bool, tableSize)
		for p := range v.axes[a].Size {
			table[p] = has(p)
		}
		return lookup(v.long[a], table), nil
	}
	hits := make([]bool, len(d.State))
	err := d.eachBlock(func(from int, at [][]int64) {
		for i, p := range at[k] {
			hits[from+i] = has(p)
		}
	})
	return matching(func(row int32) bool { return hits[row] }), err
}

// positions returns the values of an axis that match, by their places.
func (c *condition) positions(values *space.Values, spans []span) *ranges.Set {
	all := &ranges.Set{}
	for _, span := range spans {
		values.Within(span.lo, span.hi, all)
	}
	for _, text := range c.texts {
		for _, v := range []space.Value{{Text: text, Kind: space.Number}, {Text: text, Kind: space.Text},
			{Kind: space.True}, {Kind: space.False}, {Text: text, Kind: space.List}} {
			if p, ok := values.Find(v); ok && label(v) == text {
				all.Add(p, p+1)
			}
		}
	}
	return all
}

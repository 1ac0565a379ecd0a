package top

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

const (
	trialPage = 200 // trials per request
	trialLead = 60  // how many of them precede the first visible one
)

// trialList is a table of the trials of a sweep. It holds one page, since a sweep may have millions
// of trials.
type trialList struct {
	page   loader[api.TrialTable]
	query  api.TrialQuery // filter and order
	filter string         // as the user wrote it
	cursor cursor
	shown  string   // the order, filter and page that were requested last
	left   int      // columns of parameters and metrics that are scrolled out of view
	sorts  []string // the orders that < and > step through; of the columns that were last drawn
}

// fields returns the columns to request: the number, the state, the objective of the sweep,
// parameters, other metrics, and the rest.
func fields(s *api.Sweep) []string {
	all := []string{"index", "state"}
	add := func(name string) {
		if !slices.Contains(all, name) && len(all) < api.MaxFieldsQuery-4 {
			all = append(all, name)
		}
	}
	if s.Objective != nil && slices.Contains(s.Metrics, s.Objective.Metric) {
		add("m[" + s.Objective.Metric + "]")
	}
	for _, key := range s.Keys {
		add("p[" + key + "]")
	}
	for _, name := range s.Metrics {
		add("m[" + name + "]")
	}
	return append(all, "class", "wall_seconds", "node", "started")
}

// sortOf returns the sort key of a column, or "" if it can't be sorted.
func sortOf(field string) string {
	switch field {
	case "index", "state", "started":
		return field
	case "wall_seconds":
		return "wall"
	case "class", "node":
		return ""
	}
	return headOf(field)
}

// headOf returns the heading of a column.
func headOf(field string) string {
	switch field {
	case "index":
		return "#"
	case "wall_seconds":
		return "took"
	}
	if name, ok := strings.CutSuffix(field, "]"); ok {
		return name[2:]
	}
	return field
}

func (t *trialList) refresh(m *Model, s *api.Sweep, version any) tea.Cmd {
	type asked struct {
		version        any
		shown, columns string
	}
	q := t.query
	q.Limit, q.Offset = trialPage, t.page.value.Offset
	if first, last := int64(t.cursor.top), int64(t.cursor.top+max(t.cursor.page, 1)); first < q.Offset ||
		last > q.Offset+trialPage {
		q.Offset = max(0, first-trialLead)
	}
	if shown := fmt.Sprintf("%q %t %q %d", q.Sort, q.Desc, t.filter, q.Offset); shown != t.shown {
		t.shown = shown
		t.page.discard()
	}
	columns, id := fields(s), s.Sweep
	return t.page.want(m, asked{version, t.shown, strings.Join(columns, " ")},
		func(ctx context.Context, c *api.Client) (api.TrialTable, error) {
			return c.Trials().Table(ctx, id, q, columns)
		})
}

// set changes the filter.
func (t *trialList) set(text string, q api.TrialQuery) {
	q.Sort, q.Desc = t.query.Sort, t.query.Desc
	t.filter, t.query, t.cursor = text, q, cursor{page: t.cursor.page}
	t.page.value, t.page.known, t.page.err = api.TrialTable{}, false, nil
}

// sortBy changes the order.
func (t *trialList) sortBy(name string, desc bool) {
	t.query.Sort, t.query.Desc = name, desc
	t.set(t.filter, t.query)
}

// total returns the number of listed trials, if it is known.
func (t *trialList) total() int {
	p := &t.page.value
	n := p.Offset + int64(p.Count)
	switch {
	case p.Total != nil:
		n = *p.Total
	case p.Next != nil:
		n++ // there are more
	}
	return int(n)
}

// summary describes what is listed.
func (t *trialList) summary() string {
	parts := []string{}
	if t.filter != "" {
		parts = append(parts, clean(t.filter))
	}
	if t.query.Sort != "" {
		arrow := "▴"
		if t.query.Desc {
			arrow = "▾"
		}
		parts = append(parts, "by "+clean(t.query.Sort)+" "+arrow)
	}
	if t.page.known && t.page.value.Total != nil && t.filter != "" {
		parts = append(parts, plural(*t.page.value.Total, "trial"))
	}
	return strings.Join(parts, " · ")
}

// at returns the number of the trial at the cursor, or false if there is none.
func (t *trialList) at() (int64, bool) {
	row := int64(t.cursor.at) - t.page.value.Offset
	if row < 0 || row >= int64(t.page.value.Count) {
		return 0, false
	}
	n, ok := t.cell("index", int(row)).(json.Number)
	if !ok {
		return 0, false
	}
	index, err := n.Int64()
	return index, err == nil
}

// cell returns a value of a row of the page.
func (t *trialList) cell(field string, row int) any {
	for _, c := range t.page.value.Columns {
		if c.Name == field && row < len(c.Values) {
			return c.Values[row]
		}
	}
	return nil
}

func (t *trialList) keys(m *Model, s *api.Sweep) []binding {
	step := func(by int) func() tea.Cmd {
		return func() tea.Cmd {
			if len(t.sorts) == 0 {
				return nil
			}
			at := max(0, slices.Index(t.sorts, t.query.Sort))
			t.sortBy(t.sorts[(at+by+len(t.sorts))%len(t.sorts)], t.query.Desc)
			return nil
		}
	}
	all := []binding{
		{"enter l", "show the trial", func() tea.Cmd {
			if index, ok := t.at(); ok {
				return m.open(newTrialScreen(grid.TrialID{Sweep: s.Sweep, Index: index}))
			}
			return nil
		}},
		{"/", "filter trials: " + filterHelp, func() tea.Cmd {
			m.prompt = &prompt{label: "trials that are ", text: t.filter, done: func(text string) tea.Cmd {
				q, err := parseFilter(text, s)
				if err != nil {
					m.notice = err.Error()
					return nil
				}
				t.set(strings.TrimSpace(text), q)
				return nil
			}}
			return nil
		}},
		{"< >", "sort by another column", nil}, {"<", "", step(-1)}, {">", "", step(1)},
		{"R", "reverse the order", func() tea.Cmd { t.sortBy(t.query.Sort, !t.query.Desc); return nil }},
		{"left right", "scroll columns", nil},
		{"left h", "", func() tea.Cmd { t.left = max(0, t.left-1); return nil }},
		{"right", "", func() tea.Cmd { t.left++; return nil }},
	}
	if s.Objective != nil {
		all = append(all, binding{"b", "the best trials first", func() tea.Cmd {
			t.sortBy("objective", s.Objective.Goal == "maximize")
			return nil
		}})
	}
	return slices.Concat(all, t.cursor.moves(t.total(), func() {}))
}

func (t *trialList) view(m *Model, s *api.Sweep, width, height int) []string {
	switch {
	case !t.page.known:
		return absent(m, t.page.err, width)
	case t.total() == 0 && t.filter != "":
		return []string{m.paint.text(faint, fit("No trial matches "+clean(t.filter), width))}
	}
	problem := problemOf(m, t.page.err, width)
	from, to := t.cursor.window(t.total(), height-1-len(problem))
	names := fields(s)
	scrolled := names[2 : len(names)-4]
	t.left = max(0, min(t.left, len(scrolled)-1))
	names = slices.Concat(names[:2], scrolled[t.left:], names[len(names)-4:])
	columns := make([]column, len(names))
	t.sorts = t.sorts[:0]
	for i, name := range names {
		columns[i] = column{head: clean(headOf(name)), right: name != "state" && name != "class" && name != "node",
			rank: i + 2}
		switch {
		case i < 2:
			columns[i].rank = 0
		case i == 2: // the objective, or a column that has been scrolled to
			columns[i].rank = 1
		case name == "wall_seconds":
			columns[i].rank = 2
		case name == "class":
			columns[i].rank = 3
		}
		if sort := sortOf(name); sort != "" {
			t.sorts = append(t.sorts, sort)
			if sort == t.query.Sort || name == "index" && t.query.Sort == "" || t.query.Sort == "objective" &&
				i == 2 && t.left == 0 {
				columns[i].head += map[bool]string{false: "▴", true: "▾"}[t.query.Desc]
			}
		}
	}
	var cells [][]string
	for i := from; i < to; i++ {
		cells = append(cells, t.row(m, names, int64(i)-t.page.value.Offset))
	}
	return append(problem, m.paint.table(width, columns, cells, t.cursor.at-from, nil)...)
}

// row returns the cells of a row of the page; for a row that has not arrived yet only the first
// cell is filled.
func (t *trialList) row(m *Model, names []string, row int64) []string {
	cells := make([]string, len(names))
	if row < 0 || row >= int64(t.page.value.Count) {
		cells[0] = "…"
		return cells
	}
	for i, name := range names {
		v := t.cell(name, int(row))
		switch name {
		case "state":
			cells[i] = m.paint.state(value(v, false))
		case "wall_seconds":
			if n, ok := v.(json.Number); ok && n != "0" {
				if f, err := n.Float64(); err == nil {
					cells[i] = printable.Seconds(f)
				}
			}
		case "started":
			if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(v)); err == nil {
				cells[i] = clock(at, m.now())
			}
		default:
			cells[i] = ansi.Truncate(value(v, name[0] == 'p' || name == "index"), widestCell, "…")
		}
	}
	return cells
}

package monitor

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// list answers with the trials that the query selects.
func (h *trialHandlers) list(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		sendError(w, err)
		return
	}
	media := preferredMedia(r)
	w.Header().Add("Vary", "Accept")
	limit, err := pageLimit(r, media, api.MaxTrialsPage)
	if err != nil {
		sendError(w, err)
		return
	}
	l, err := h.newListing(r, s)
	if err != nil {
		sendError(w, err)
		return
	}
	columns, err := h.columns(r, s)
	if err != nil {
		sendError(w, err)
		return
	}
	if media == mediaJSON {
		h.table(w, r, l, columns, limit)
		return
	}
	writeAll(w, media, columns, r.Form["field"] != nil, func(put func(*api.Trial) error) error {
		return l.each(r.Context(), put)
	})
}

// table answers with a page of a listing, by columns.
func (h *trialHandlers) table(
	w http.ResponseWriter, r *http.Request, l *listing, columns []column[api.Trial], limit int64,
) {
	var err error
	applied, key := h.history.Applied(), pageKey(l, columns, limit)
	table, found := h.pages.find(key, l.sweep, h.history)
	if !found {
		if table, err = h.readPage(r.Context(), l, columns, limit, key); err != nil {
			sendError(w, err)
			return
		}
	}
	table.Applied = applied
	if total := l.matched; l.filtered {
		table.Total = &total
	} else if table.Total, err = h.count(r.Context(), l.sweep, &l.q); err != nil {
		sendError(w, err)
		return
	}
	sendJSON(w, r, table)
}

// readPage reads a page of a listing, and keeps it under a key if it has one.
func (h *trialHandlers) readPage(
	ctx context.Context, l *listing, columns []column[api.Trial], limit int64, key string,
) (api.TrialTable, error) {
	mark, offset := h.history.Mark(), l.q.Offset
	table := api.TrialTable{Sweep: l.sweep.ID, Offset: offset, Columns: make([]api.Column, len(columns))}
	for i, c := range columns {
		table.Columns[i] = api.Column{Name: c.name, Values: []any{}}
	}
	l.left = limit + 1 // one extra trial shows whether there is another page
	last := ""         // the cursor of the last trial of the page
	running := false
	err := l.each(ctx, func(v *api.Trial) error {
		if int64(table.Count) == limit {
			table.Cursor = last
			if next := table.Offset + limit; l.after == nil {
				table.Next = &next
			}
			return nil
		}
		if table.Count++; int64(table.Count) == limit {
			last = l.cursorAt(l.last, table.Offset+limit-1)
		}
		running = running || v.State == grid.Running
		for i, c := range columns {
			table.Columns[i].Values = append(table.Columns[i].Values, c.of(v))
		}
		return nil
	})
	if err == nil && key != "" && !running { // a running trial is different at every moment
		h.pages.add(&trialPage{key: key, sweep: l.sweep, lo: offset, hi: offset + limit + 1, mark: mark, table: table})
	}
	return table, err
}

// count counts the trials that a query selects; nil if that would require reading each trial.
func (h *trialHandlers) count(ctx context.Context, s *grid.Sweep, q *api.TrialQuery) (*int64, error) {
	if q.Class != "" {
		return nil, nil
	}
	c, err := h.history.Counts(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	v := sweepWithCounts(s, &c)
	total := int64(0)
	for state, n := range map[grid.State]int64{
		grid.Pending: v.Pending, grid.Running: v.Running, grid.Succeeded: v.Succeeded, grid.Failed: v.Failed,
		grid.Cancelled: v.Cancelled,
	} {
		if len(q.States) == 0 || slices.Contains(q.States, state) {
			total += n
		}
	}
	return &total, nil
}

// columns returns the columns that a request names, or all columns if it names none.
func (h *trialHandlers) columns(r *http.Request, s *grid.Sweep) ([]column[api.Trial], error) {
	metrics, err := h.history.MetricNames(r.Context(), s.ID)
	if err != nil {
		return nil, fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	all := slices.Clone(trialFields)
	for i, key := range s.Space.Keys() {
		all = append(all, column[api.Trial]{"p[" + key + "]", func(t *api.Trial) any {
			if i < len(t.Params) && t.Params[i].Key == key {
				return t.Params[i].Value
			}
			return nil
		}})
	}
	for _, name := range metrics {
		all = append(all, column[api.Trial]{"m[" + name + "]", func(t *api.Trial) any {
			if v, ok := t.Metrics[name]; ok {
				return v
			}
			return nil
		}})
	}
	names := r.Form["field"]
	if len(names) == 0 {
		return all, nil
	}
	if len(names) > api.MaxFieldsQuery {
		return nil, badRequest(fmt.Sprintf("%d columns are requested, but at most %d are allowed", len(names),
			api.MaxFieldsQuery), "")
	}
	var chosen []column[api.Trial]
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue // a JSON object has each key once
		}
		at := slices.IndexFunc(all, func(c column[api.Trial]) bool { return c.name == name })
		if at < 0 {
			return nil, badRequest(fmt.Sprintf("trials of %s have no column %.60q", s.ID, name),
				"columns are fields of a trial, p[KEY] for parameters and m[NAME] for metrics")
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

var trialFields = []column[api.Trial]{
	{"index", func(t *api.Trial) any { return t.Index }}, {"state", func(t *api.Trial) any { return t.State }},
	{"attempt", func(t *api.Trial) any { return t.Attempt }}, {"attempts", func(t *api.Trial) any {
		return t.Attempts
	}},
	{"node", func(t *api.Trial) any { return t.Node }}, {"class", func(t *api.Trial) any { return t.Class }},
	{"exit_code", func(t *api.Trial) any { return t.ExitCode }}, {"reason", func(t *api.Trial) any { return t.Reason }},
	{"started", func(t *api.Trial) any { return t.Started }}, {"ended", func(t *api.Trial) any { return t.Ended }},
	{"wall_seconds", func(t *api.Trial) any { return t.Usage.Wall }}, {"cpu_seconds", func(t *api.Trial) any {
		return t.Usage.CPU
	}},
	{"peak_memory_bytes", func(t *api.Trial) any { return t.Usage.Memory }},
}

package monitor

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// A list is a bounded page as JSON, or all that the query selects as CSV or JSON lines: what the client accepts decides. CSV and lines
// are sent as they are made; a client sees a list that could not be completed by the connection, which is cut.

// acceptsOf chooses the media type of a list: the one that the client likes most, JSON where it does not say or where nothing else is left.
func acceptsOf(r *http.Request) string {
	best, most := mediaJSON, 0.0
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, params, _ := mime.ParseMediaType(part)
		q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if err != nil || !slices.Contains([]string{mediaCSV, mediaLines, mediaJSON, "*/*", "application/*", "text/*"}, media) {
			continue
		}
		if strings.HasSuffix(media, "*") { // what is named goes before
			q -= 1e-6
			media = map[bool]string{true: mediaCSV, false: mediaJSON}[media == "text/*"]
		}
		if q > most {
			best, most = media, q
		}
	}
	return best
}

// column is one column of a list of Ts.
type column[T any] struct {
	name string
	of   func(*T) any
}

// writeAll writes all rows as CSV, or as lines: whole, or of the columns alone where a client has named them. What goes wrong before
// anything is sent is told as a problem.
func writeAll[T any](w http.ResponseWriter, media string, columns []column[T], named bool, rows func(put func(*T) error) error) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	out := &counter{w: w}
	var err error
	if media == mediaCSV {
		err = writeCSV(out, columns, rows)
	} else {
		lines := json.NewEncoder(out)
		err = rows(func(v *T) error {
			if !named {
				return lines.Encode(v)
			}
			line := make(map[string]any, len(columns))
			for _, c := range columns {
				line[c.name] = c.of(v)
			}
			return lines.Encode(line)
		})
	}
	switch {
	case err == nil:
	case out.n == 0:
		refuse(w, err)
	default:
		panic(http.ErrAbortHandler)
	}
}

// counter counts the bytes that are written.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

func writeCSV[T any](w io.Writer, columns []column[T], rows func(put func(*T) error) error) error {
	out := csv.NewWriter(w)
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = cell(c.name)
	}
	if err := out.Write(cells); err != nil {
		return err
	}
	err := rows(func(v *T) error {
		for i, c := range columns {
			cells[i] = cell(c.of(v))
		}
		return out.Write(cells)
	})
	if err != nil {
		return err // what is in its buffer goes, too: a list without its end is worth nothing
	}
	out.Flush()
	return out.Error()
}

// cell writes a value for a spreadsheet: texts that it would take for a formula get an apostrophe.
func cell(v any) string {
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" {
		return ""
	}
	var text string
	if json.Unmarshal(b, &text) != nil {
		return string(b) // a number, a flag, or a structure
	}
	if _, err := strconv.ParseFloat(text, 64); err != nil && text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// pageLimit reads the bounds of a page; 0 means no bound, which CSV and lines have without a limit.
func pageLimit(r *http.Request, media string, most int64) (limit int64, err error) {
	limit = api.DefaultPage
	if media != mediaJSON {
		limit, most = 0, math.MaxInt64
	}
	if text := r.FormValue("limit"); text != "" {
		if limit, err = strconv.ParseInt(text, 10, 64); err != nil || limit < 1 || limit > most {
			return 0, badRequest(fmt.Sprintf("limit %.20q is not a number from 1 to %d", text, most), "ask for the next page, or for text/csv or "+mediaLines+", which have no pages")
		}
	}
	return limit, nil
}

var sweepColumns = []column[api.Sweep]{
	{"sweep", func(s *api.Sweep) any { return s.Sweep }}, {"state", func(s *api.Sweep) any { return s.State }},
	{"count", func(s *api.Sweep) any { return s.Count }}, {"pending", func(s *api.Sweep) any { return s.Pending }},
	{"running", func(s *api.Sweep) any { return s.Running }}, {"succeeded", func(s *api.Sweep) any { return s.Succeeded }},
	{"failed", func(s *api.Sweep) any { return s.Failed }}, {"cancelled", func(s *api.Sweep) any { return s.Cancelled }},
	{"project", func(s *api.Sweep) any { return s.Project }}, {"task", func(s *api.Sweep) any { return s.Task }},
	{"name", func(s *api.Sweep) any { return s.Name }}, {"priority", func(s *api.Sweep) any { return s.Priority }},
	{"submitted", func(s *api.Sweep) any { return s.Submitted }}, {"started", func(s *api.Sweep) any { return s.Started }},
	{"ended", func(s *api.Sweep) any { return s.Ended }}, {"cpu_seconds", func(s *api.Sweep) any { return s.CPU }},
	{"eta_seconds", func(s *api.Sweep) any { return s.ETA }},
}

// listSweeps answers with the sweeps that the query selects, the newest first.
func (h *sweepHandlers) list(w http.ResponseWriter, r *http.Request) {
	media := acceptsOf(r)
	w.Header().Add("Vary", "Accept")
	limit, err := pageLimit(r, media, api.MaxSweepsPage)
	if err != nil {
		refuse(w, err)
		return
	}
	all := h.lookup.list(r.FormValue("state"), r.FormValue("project"))
	list := api.SweepList{Sweeps: []api.Sweep{}, Total: len(all)}
	if text := r.FormValue("after"); text != "" {
		last, err := parseCursor(text)
		if err != nil {
			refuse(w, err)
			return
		}
		all = all[sweepsFrom(all, last):]
	}
	if media != mediaJSON {
		if limit > 0 {
			all = all[:min(int64(len(all)), limit)]
		}
		writeAll(w, media, sweepColumns, false, func(put func(*api.Sweep) error) error { return h.each(r.Context(), all, put) })
		return
	}
	if int64(len(all)) > limit {
		all = all[:limit]
		list.Next = cursor(all[limit-1])
	}
	err = h.each(r.Context(), all, func(s *api.Sweep) error {
		list.Sweeps = append(list.Sweeps, *s)
		return nil
	})
	if err != nil {
		refuse(w, err)
		return
	}
	send(w, r, list)
}

func (h *sweepHandlers) each(ctx context.Context, all []*grid.Sweep, put func(*api.Sweep) error) error {
	for _, s := range all {
		v, err := h.views.of(ctx, s)
		if err == nil {
			err = put(&v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cursor names the place of a sweep in the order of all, which it keeps also when the sweep has been removed.
func cursor(s *grid.Sweep) string {
	return fmt.Sprintf("%d.%d.%s", s.Number, s.Submitted.UnixNano(), s.ID)
}

func parseCursor(text string) (*grid.Sweep, error) {
	parts := strings.SplitN(text, ".", 3)
	if len(parts) == 3 {
		number, err := strconv.ParseInt(parts[0], 10, 64)
		at, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err == nil && err2 == nil {
			return &grid.Sweep{Number: number, Submitted: time.Unix(0, at), ID: grid.SweepID(parts[2])}, nil
		}
	}
	return nil, badRequest(fmt.Sprintf("after %.60q is not a place in the list", text), "take it from next of the page before")
}

// sweepsFrom gives the place of the first sweep behind last.
func sweepsFrom(all []*grid.Sweep, last *grid.Sweep) int {
	i := slices.IndexFunc(all, func(s *grid.Sweep) bool { return s.Compare(last) < 0 })
	if i < 0 {
		return len(all)
	}
	return i
}

// listTrials answers with the trials that the query selects.
func (h *trialHandlers) list(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		refuse(w, err)
		return
	}
	media := acceptsOf(r)
	w.Header().Add("Vary", "Accept")
	limit, err := pageLimit(r, media, api.MaxTrialsPage)
	if err != nil {
		refuse(w, err)
		return
	}
	l, err := h.newListing(r, s)
	if err != nil {
		refuse(w, err)
		return
	}
	columns, err := h.columns(r, s)
	if err != nil {
		refuse(w, err)
		return
	}
	if media == mediaJSON {
		h.table(w, r, l, columns, limit)
		return
	}
	writeAll(w, media, columns, r.Form["field"] != nil, func(put func(*api.Trial) error) error { return l.each(r.Context(), put) })
}

// trialTable answers with a page of a listing, by columns.
func (h *trialHandlers) table(w http.ResponseWriter, r *http.Request, l *listing, columns []column[api.Trial], limit int64) {
	var err error
	table := api.TrialTable{Sweep: l.sweep.ID, Applied: h.history.Applied(), Offset: l.q.Offset, Columns: make([]api.Column, len(columns))}
	if total := l.matched; l.filtered {
		table.Total = &total
	} else if table.Total, err = h.count(r.Context(), l.sweep, &l.q); err != nil {
		refuse(w, err)
		return
	}
	for i, c := range columns {
		table.Columns[i] = api.Column{Name: c.name, Values: []any{}}
	}
	l.left = limit + 1 // one more tells whether there is another page
	last := ""         // the cursor of the last trial of the page
	err = l.each(r.Context(), func(v *api.Trial) error {
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
		for i, c := range columns {
			table.Columns[i].Values = append(table.Columns[i].Values, c.of(v))
		}
		return nil
	})
	if err != nil {
		refuse(w, err)
		return
	}
	send(w, r, table)
}

// countTrials counts what a query selects; nil where only a look at each trial would tell.
func (h *trialHandlers) count(ctx context.Context, s *grid.Sweep, q *api.TrialQuery) (*int64, error) {
	if q.Class != "" {
		return nil, nil
	}
	c, err := h.history.Counts(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	v := counted(s, &c)
	total := int64(0)
	for state, n := range map[grid.State]int64{
		grid.Pending: v.Pending, grid.Running: v.Running, grid.Succeeded: v.Succeeded, grid.Failed: v.Failed, grid.Cancelled: v.Cancelled,
	} {
		if len(q.States) == 0 || slices.Contains(q.States, state) {
			total += n
		}
	}
	return &total, nil
}

// trialColumns gives the columns that a request names, all of them where it names none.
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
		return nil, badRequest(fmt.Sprintf("%d columns are named, and at most %d can be", len(names), api.MaxFieldsQuery), "")
	}
	chosen := make([]column[api.Trial], len(names))
	for i, name := range names {
		at := slices.IndexFunc(all, func(c column[api.Trial]) bool { return c.name == name })
		if at < 0 {
			return nil, badRequest(fmt.Sprintf("trials of %s have no column %.60q", s.ID, name), "columns are fields of a trial, p[KEY] for parameters and m[NAME] for metrics")
		}
		chosen[i] = all[at]
	}
	return chosen, nil
}

var trialFields = []column[api.Trial]{
	{"index", func(t *api.Trial) any { return t.Index }}, {"state", func(t *api.Trial) any { return t.State }},
	{"attempt", func(t *api.Trial) any { return t.Attempt }}, {"attempts", func(t *api.Trial) any { return t.Attempts }},
	{"node", func(t *api.Trial) any { return t.Node }}, {"class", func(t *api.Trial) any { return t.Class }},
	{"exit_code", func(t *api.Trial) any { return t.ExitCode }}, {"reason", func(t *api.Trial) any { return t.Reason }},
	{"started", func(t *api.Trial) any { return t.Started }}, {"ended", func(t *api.Trial) any { return t.Ended }},
	{"wall_seconds", func(t *api.Trial) any { return t.Usage.Wall }}, {"cpu_seconds", func(t *api.Trial) any { return t.Usage.CPU }},
	{"peak_memory_bytes", func(t *api.Trial) any { return t.Usage.Memory }},
}

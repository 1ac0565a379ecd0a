package monitor

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

var sweepColumns = []column[api.Sweep]{
	{"sweep", func(s *api.Sweep) any { return s.Sweep }}, {"state", func(s *api.Sweep) any { return s.State }},
	{"count", func(s *api.Sweep) any { return s.Count }}, {"pending", func(s *api.Sweep) any { return s.Pending }},
	{"running", func(s *api.Sweep) any { return s.Running }}, {"succeeded", func(s *api.Sweep) any {
		return s.Succeeded
	}},
	{"failed", func(s *api.Sweep) any { return s.Failed }}, {"cancelled", func(s *api.Sweep) any {
		return s.Cancelled
	}},
	{"project", func(s *api.Sweep) any { return s.Project }}, {"task", func(s *api.Sweep) any { return s.Task }},
	{"name", func(s *api.Sweep) any { return s.Name }}, {"priority", func(s *api.Sweep) any { return s.Priority }},
	{"submitted", func(s *api.Sweep) any { return s.Submitted }}, {"started", func(s *api.Sweep) any {
		return s.Started
	}},
	{"ended", func(s *api.Sweep) any { return s.Ended }}, {"cpu_seconds", func(s *api.Sweep) any { return s.CPU }},
	{"eta_seconds", func(s *api.Sweep) any { return s.ETA }},
}

// list returns the sweeps in a state and of a project, the newest first; an empty string matches
// any.
func (l *lookup) list(state, project string) []*grid.Sweep {
	var all []*grid.Sweep
	for _, rec := range l.master.Sweeps() {
		s := rec.Sweep
		if !s.Removing && (state == "" || string(s.State) == state) && (project == "" || s.Project == project) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *grid.Sweep) int { return b.Compare(a) })
	return all
}

// list answers with the sweeps that the query selects, the newest first.
func (h *sweepHandlers) list(w http.ResponseWriter, r *http.Request) {
	media := preferredMedia(r)
	w.Header().Add("Vary", "Accept")
	limit, err := pageLimit(r, media, api.MaxSweepsPage)
	if err != nil {
		sendError(w, err)
		return
	}
	all := h.lookup.list(r.FormValue("state"), r.FormValue("project"))
	list := api.SweepList{Sweeps: []api.Sweep{}, Total: len(all)}
	if text := r.FormValue("after"); text != "" {
		last, err := parseCursor(text)
		if err != nil {
			sendError(w, err)
			return
		}
		from := slices.IndexFunc(all, func(s *grid.Sweep) bool { return s.Compare(last) < 0 })
		if from < 0 {
			from = len(all)
		}
		all = all[from:]
	}
	if media != mediaJSON {
		if limit > 0 {
			all = all[:min(int64(len(all)), limit)]
		}
		writeAll(w, media, sweepColumns, false, func(put func(*api.Sweep) error) error {
			return h.each(r.Context(), all, put)
		})
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
		sendError(w, err)
		return
	}
	sendJSON(w, r, list)
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

// cursor encodes the position of a sweep in the order of all sweeps, which stays valid when the
// sweep is removed.
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
	return nil, badRequest(fmt.Sprintf("after %.60q is not a place in the list", text),
		"take it from next of the page before")
}

package monitor

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// failures groups the failed trials of a sweep by class. The counts come from the columns of
// history, so only one trial of each class is read.
func (h *sweepHandlers) failures(r *http.Request) (api.Failures, error) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		return api.Failures{}, err
	}
	out := api.Failures{Groups: []api.FailureGroup{}}
	c, err := h.history.Columns(r.Context(), s.ID, 0)
	if err != nil {
		return out, err
	}
	var counts [math.MaxUint8 + 1]int64
	var first [math.MaxUint8 + 1]int // the row of an example of each class
	failed := uint8(slices.Index(grid.States[:], grid.Failed) + 1)
	for row, state := range c.State {
		if state != failed {
			continue
		}
		class := c.Class[row]
		if counts[class] == 0 {
			first[class] = row
		}
		counts[class]++
		out.Counted++
	}
	for class, n := range counts {
		if n == 0 {
			continue
		}
		t, _, err := h.history.Trial(r.Context(), grid.TrialID{Sweep: s.ID, Index: c.Index(first[class])})
		if err != nil {
			return out, err
		}
		t.Result.Class, _ = c.ClassOf(first[class])
		g := failureGroup(s.ID, &t)
		g.Count = n
		out.Groups = append(out.Groups, *g)
	}
	slices.SortFunc(out.Groups, func(a, b api.FailureGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Class, b.Class))
	})
	return out, nil
}

// failureGroup returns a group for the class of a trial, with the trial as its example.
func failureGroup(id grid.SweepID, t *grid.Trial) *api.FailureGroup {
	f := grid.FailureOf(t.Result.Class)
	g := &api.FailureGroup{
		Class: t.Result.Class, Cause: f.Cause, Owner: string(f.Owner), Hint: f.Hint,
		Trial: grid.TrialID{Sweep: id, Index: t.Index}.String(), Reason: t.Result.Reason,
	}
	for line := range strings.SplitSeq(t.Result.Reason, "\n") {
		if hint, ok := strings.CutPrefix(line, "hint: "); ok && t.Result.Rule != "" {
			g.Hint = hint
		}
	}
	return g
}

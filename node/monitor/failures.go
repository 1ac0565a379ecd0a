package monitor

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// countedFailures bounds how many failed trials are looked at.
const countedFailures = 100_000

// failures groups the failed trials of a sweep by class.
func (m *Monitor) failures(r *http.Request) (api.Failures, error) {
	s, err := m.record(r)
	if err != nil {
		return api.Failures{}, err
	}
	out := api.Failures{Groups: []api.FailureGroup{}}
	groups := map[grid.Class]*api.FailureGroup{}
	q := history.Query{States: []grid.State{grid.Failed}, Limit: countedFailures + 1}
	for t, err := range m.cfg.History.Trials(r.Context(), s.ID, q) {
		if err != nil {
			return out, err
		}
		if out.Counted == countedFailures {
			out.More = true
			break
		}
		out.Counted++
		g := groups[t.Result.Class]
		if g == nil {
			g = failureGroup(s.ID, &t)
			groups[t.Result.Class] = g
		}
		g.Count++
	}
	for _, g := range groups {
		out.Groups = append(out.Groups, *g)
	}
	slices.SortFunc(out.Groups, func(a, b api.FailureGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Class, b.Class))
	})
	return out, nil
}

// failureGroup begins the group of a trial's class, with the trial as the example.
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

package monitor

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/failure"
	"mlfnode/node/history"
)

const (
	// countedFailures bounds how many failed trials are looked at, and countedShapes how many shapes of last lines are told apart.
	countedFailures = 100_000
	countedShapes   = 1000
	// shownShapes is how many shapes are told of.
	shownShapes = 5
)

// failures groups the failed trials of a sweep by class.
func (m *Monitor) failures(r *http.Request) (api.Failures, error) {
	s, err := m.record(r)
	if err != nil {
		return api.Failures{}, err
	}
	out := api.Failures{Groups: []api.FailureGroup{}}
	groups := map[grid.Class]*failureGroup{}
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
			g = &failureGroup{shapes: map[string]*api.FailureShape{}}
			groups[t.Result.Class] = g
			g.begin(s.ID, &t)
		}
		g.count(s.ID, &t)
	}
	for _, g := range groups {
		out.Groups = append(out.Groups, g.end())
	}
	slices.SortFunc(out.Groups, func(a, b api.FailureGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Class, b.Class))
	})
	return out, nil
}

// failureGroup counts the failures of one class.
type failureGroup struct {
	api.FailureGroup
	shapes map[string]*api.FailureShape // of last lines that no rule knows
}

// begin takes the first failure of the class as the example.
func (g *failureGroup) begin(id grid.SweepID, t *grid.Trial) {
	f := grid.FailureOf(t.Result.Class)
	g.FailureGroup = api.FailureGroup{
		Class: t.Result.Class, Cause: f.Cause, Owner: string(f.Owner), Hint: f.Hint,
		Trial: grid.TrialID{Sweep: id, Index: t.Index}.String(), Reason: t.Result.Reason,
	}
	for line := range strings.SplitSeq(t.Result.Reason, "\n") {
		if hint, ok := strings.CutPrefix(line, "hint: "); ok && t.Result.Rule != "" {
			g.Hint = hint
		}
	}
}

func (g *failureGroup) count(id grid.SweepID, t *grid.Trial) {
	g.Count++
	if t.Result.Class != grid.ClassExit || t.Result.Rule != "" {
		return
	}
	lines := strings.Split(strings.TrimSpace(t.Result.Reason), "\n")
	if len(lines) < 2 {
		return // it printed nothing
	}
	shape := failure.Shape(lines[len(lines)-1])
	s := g.shapes[shape]
	if s == nil && len(g.shapes) < countedShapes {
		s = &api.FailureShape{Line: shape, Trial: grid.TrialID{Sweep: id, Index: t.Index}.String()}
		g.shapes[shape] = s
	}
	if s != nil {
		s.Count++
	}
}

func (g *failureGroup) end() api.FailureGroup {
	for _, s := range g.shapes {
		g.Unknown = append(g.Unknown, *s)
	}
	slices.SortFunc(g.Unknown, func(a, b api.FailureShape) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Line, b.Line))
	})
	g.Unknown = g.Unknown[:min(len(g.Unknown), shownShapes)]
	return g.FailureGroup
}

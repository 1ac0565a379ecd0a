package monitor

import (
	"maps"
	"net/http"
	"slices"

	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// sweepHandlers answer calls that read sweeps.
type sweepHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	store   *jetstream.Store
	views   *sweepViews
}

func (h *sweepHandlers) listOld(r *http.Request) ([]api.Sweep, error) {
	records := h.master.Sweeps()
	slices.SortFunc(records, func(a, b jetstream.Record) int { return a.Sweep.Compare(b.Sweep) })
	all := make([]api.Sweep, 0, len(records))
	for _, rec := range records {
		if rec.Sweep.Removing {
			continue
		}
		s, err := h.views.of(r.Context(), rec.Sweep)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (h *sweepHandlers) show(r *http.Request) (api.Sweep, error) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		return api.Sweep{}, err
	}
	v, err := h.views.of(r.Context(), s)
	if err != nil {
		return v, err
	}
	v.LogNext, err = h.store.Logs.Next(r.Context())
	return v, err
}

// describe answers with the description of a sweep. Like the command of a trial, it is for
// operators.
func (h *sweepHandlers) describe(r *http.Request) (api.Description, error) {
	v, err := h.show(r)
	if err != nil {
		return api.Description{}, err
	}
	s, err := h.lookup.byID(v.Sweep)
	if err != nil {
		return api.Description{}, err
	}
	d := api.Description{Sweep: v, Task: api.Spec(&s.Task), Space: api.SpecOf(s.Space),
		Bundle: s.Bundle, Origin: s.Origin}
	hidden := hiddenVariables(s)
	d.Hidden = nonNil(slices.Sorted(maps.Keys(hidden)))
	d.Task.Env = maps.Clone(s.Task.Env)
	maps.DeleteFunc(d.Task.Env, func(name, _ string) bool { return hidden[name] })
	return d, nil
}

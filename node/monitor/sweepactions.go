package monitor

import (
	"cmp"
	"context"
	"net/http"
	"strconv"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/master"
	"mlfnode/projects"
)

// sweepActions answer calls that submit, change and remove sweeps.
type sweepActions struct {
	lookup *lookup
	master *master.Master
	views  *sweepViews
}

func (h *sweepActions) submit(r *http.Request, q *api.Submission) (api.Sweep, error) {
	s, err := q.Check()
	if err == nil {
		err = cmp.Or(projects.CheckShare(s.Task.Share), projects.CheckInputs(s.Task.Inputs))
	}
	if err != nil {
		return api.Sweep{}, badRequest(err.Error(), "")
	}
	if s.Bundle != "" && !isDigest(s.Bundle) {
		return api.Sweep{}, badRequest("a bundle is named by its SHA-256, 64 hex digits in lower case", "")
	}
	rec, err := h.master.Submit(r.Context(), s)
	if err != nil {
		return api.Sweep{}, err
	}
	return h.views.of(r.Context(), rec.Sweep)
}

// remove removes a sweep that does not run from the store, or the remains of an interrupted
// removal.
func (h *sweepActions) remove(r *http.Request) (struct{}, error) {
	id := grid.SweepID(r.PathValue("sweep"))
	if rec, ok := h.master.Sweep(id); !ok || !rec.Sweep.Removing {
		s, err := h.lookup.sweep(r)
		if err != nil {
			return struct{}{}, err
		}
		id = s.ID
	}
	return struct{}{}, h.master.Remove(r.Context(), id)
}

// change applies a change to a sweep and returns the sweep afterwards. With dry_run nothing
// changes; touches then returns how many trials would change if do does not.
func (h *sweepActions) change(
	r *http.Request, touches func(*api.Sweep) int64, do func(context.Context, *grid.Sweep) (changed int64, err error),
) (api.Done, error) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		return api.Done{}, err
	}
	ctx, dry := r.Context(), r.URL.Query().Get("dry_run") == "true"
	if dry {
		ctx = master.DryRun(ctx)
	}
	changed, err := do(ctx, s)
	if err != nil {
		return api.Done{}, err
	}
	if rec, ok := h.master.Sweep(s.ID); ok {
		s = rec.Sweep
	}
	v, err := h.views.of(ctx, s)
	if dry && touches != nil {
		changed = touches(&v)
	}
	return api.Done{Sweep: v, Changed: changed, DryRun: dry}, err
}

func pending(v *api.Sweep) int64    { return v.Pending }
func running(v *api.Sweep) int64    { return v.Running }
func unfinished(v *api.Sweep) int64 { return v.Pending + v.Running }

func (h *sweepActions) pause(r *http.Request) (api.Done, error) {
	return h.change(r, pending, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := h.master.Pause(ctx, s.ID, false)
		return 0, err
	})
}

func (h *sweepActions) kill(r *http.Request) (api.Done, error) {
	return h.change(r, running, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := h.master.Pause(ctx, s.ID, true)
		return 0, err
	})
}

func (h *sweepActions) resume(r *http.Request) (api.Done, error) {
	return h.change(r, pending, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := h.master.Resume(ctx, s.ID)
		return 0, err
	})
}

func (h *sweepActions) cancel(r *http.Request) (api.Done, error) {
	return h.change(r, unfinished, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := h.master.Cancel(ctx, s.ID, r.URL.Query().Get("save") == "true")
		return 0, err
	})
}

func (h *sweepActions) cancelTrial(r *http.Request) (api.Done, error) {
	one := func(*api.Sweep) int64 { return 1 }
	return h.change(r, one, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		index, err := trialIndex(s, r.PathValue("index"))
		if err == nil && index < 0 {
			err = badRequest("there is no trial "+r.PathValue("index"), "")
		}
		if err != nil {
			return 0, err
		}
		_, err = h.master.CancelTrial(ctx, grid.TrialID{Sweep: s.ID, Index: index})
		return 1, err
	})
}

func (h *sweepActions) retry(r *http.Request, q *api.Retry) (api.Done, error) {
	return h.change(r, nil, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		if _, err := trialIndex(s, strconv.FormatInt(q.Index, 10)); err != nil {
			return 0, err
		}
		if q.Bundle != "" && !isDigest(q.Bundle) {
			return 0, badRequest("the bundle of the retry is not named by a SHA-256 digest",
				"use an mlfnode of the node's version")
		}
		_, changed, err := h.master.Retry(ctx, s.ID, *q)
		return changed, err
	})
}

func (h *sweepActions) extend(r *http.Request, q *api.Extend) (api.Done, error) {
	return h.change(r, nil, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, changed, err := h.master.Extend(ctx, s.ID, *q)
		return changed, err
	})
}

func (h *sweepActions) set(r *http.Request, q *api.Set) (api.Done, error) {
	if err := q.Check(); err != nil {
		return api.Done{}, badRequest(err.Error(), "")
	}
	return h.change(r, pending, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := h.master.Set(ctx, s.ID, *q)
		return 0, err
	})
}

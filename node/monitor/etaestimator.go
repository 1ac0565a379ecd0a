package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/monitor/chart"
)

// etaEstimator estimates how long sweeps will still run. Its cache has its own semaphore, because a
// chart may take longer than a caller that shows the time left can wait.
type etaEstimator struct {
	history *history.DB
	charts  *chartViews
	cache   *chartCache
	log     *slog.Logger
}

// fit returns a function that fits the model of trial durations.
func (ee *etaEstimator) fit(ctx context.Context, s *grid.Sweep) computation {
	return func() (any, selection, error) {
		d, err := ee.charts.data(ctx, s, "wall", "", etaTrials, nil)
		if err != nil {
			return nil, selection{}, err
		}
		if err := ee.addRecent(ctx, s, d); err != nil {
			return nil, selection{}, err
		}
		v, err := chart.New(d, chart.Where{})
		if err != nil {
			return nil, selection{}, err
		}
		return v.ETA(), selection{}, nil
	}
}

// addRecent adds the running trials and the most recently ended ones to a sample of a sweep.
func (ee *etaEstimator) addRecent(ctx context.Context, s *grid.Sweep, d *chart.Data) error {
	if d.Stride <= 1 {
		return nil
	}
	since := func(t int64) float64 { return float64(t-d.Base) / 1e6 }
	for _, q := range []history.Query{{States: []grid.State{grid.Running}}, {Sort: history.SortEnded, Desc: true}} {
		q.Limit = recentTrials
		for t, err := range ee.history.Trials(ctx, s.ID, q) {
			if err != nil {
				return fmt.Errorf("list what ran last of %s: %w", s.ID, err)
			}
			run := chart.Run{Index: t.Index, Start: since(t.Result.Started), End: since(t.Ended),
				Running: t.State == grid.Running}
			switch {
			case t.Index >= s.Space.Count() || t.Result.Started == 0 || run.Running == (q.Sort != ""):
				continue
			case run.Running:
				run.End = d.Now
			default:
				d.Recent.From = run.End
			}
			d.Recent.Runs = append(d.Recent.Runs, run)
		}
	}
	return nil
}

const (
	// etaAge is the minimum age at which an estimate is recomputed. The time since it was made is
	// subtracted from an older one.
	etaAge = 5 * time.Second
	// youngETAFactor limits etaAge to one part in so many of the time since the sweep started:
	// much may have ended since an estimate of a young sweep.
	youngETAFactor = 10
)

// remaining returns how many seconds a sweep will still run: by the model or, as long as the model
// has no answer, by the number of completed trials.
func (ee *etaEstimator) remaining(ctx context.Context, s *grid.Sweep, v *api.Sweep) *float64 {
	if v.Running+v.Succeeded+v.Failed == 0 {
		return nil
	}
	c, err := ee.history.Counts(ctx, s.ID)
	if err != nil {
		return nil // history reports elsewhere what is wrong with it
	}
	version, _ := ee.charts.version(ctx, s, etaAge)
	least := min(etaAge, time.Since(time.UnixMicro(c.Started))/youngETAFactor)
	a, err := ee.cache.recent(string(s.ID), version, least, ee.fit(ctx, s))
	if err == nil && a != nil {
		var e chart.ETA
		if err = json.Unmarshal(a.body, &e); err == nil && !math.IsNaN(float64(e.Seconds)) {
			left := max(0, float64(e.Seconds)-time.Since(a.made).Seconds())
			return &left
		}
	}
	if err != nil {
		ee.log.Debug("estimate the time left", "sweep", s.ID, "err", err)
	}
	return extrapolate(v, &c)
}

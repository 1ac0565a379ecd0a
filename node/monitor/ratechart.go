package monitor

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

const (
	rateStep  = time.Minute
	rateSteps = 60
	// rateSweeps bounds the sweeps that are counted, the newest first.
	rateSweeps = 32
	// rateAge is the minimum age at which the count is repeated: it reads a column of each sweep.
	rateAge = 10 * time.Second
)

// rate answers with the number of trials that ended in each minute of the last hour.
func (h *chartHandlers) rate(w http.ResponseWriter, r *http.Request) {
	version := fmt.Sprint(h.history.Applied(), time.Now().Unix()/int64(rateStep/time.Second))
	a, err := h.charts.cache.get(r.Context(), "rate", version, rateAge, func() (any, selection, error) {
		v, err := h.countRate(r.Context(), time.Now())
		return v, selection{}, err
	})
	sendChart(w, r, a, err)
}

func (h *chartHandlers) countRate(ctx context.Context, now time.Time) (*api.Rate, error) {
	until := now.Truncate(rateStep).Add(rateStep)
	from := until.Add(-rateSteps * rateStep)
	v := &api.Rate{Step: rateStep.Seconds(), Until: until.UTC(), Succeeded: make([]int64, rateSteps),
		Failed: make([]int64, rateSteps), Cancelled: make([]int64, rateSteps)}
	var sweeps []*grid.Sweep
	for _, rec := range h.master.Sweeps() {
		if s := rec.Sweep; !s.Removing && (s.Active() || s.Ended.After(from) || s.Paused.After(from)) {
			sweeps = append(sweeps, s)
		}
	}
	slices.SortFunc(sweeps, func(a, b *grid.Sweep) int { return b.Compare(a) })
	which := ""
	if len(sweeps) > rateSweeps {
		which, sweeps = fmt.Sprintf(" of the %d newest sweeps", rateSweeps), sweeps[:rateSweeps]
	}
	for _, s := range sweeps {
		c, err := h.history.Columns(ctx, s.ID, chartTrials, history.ColumnEnded)
		if err != nil {
			return nil, err
		}
		countEnds(v, c, float64(from.UnixMicro()-c.Base)/1e6)
	}
	total, most := int64(0), int64(0)
	for i := range rateSteps {
		n := v.Succeeded[i] + v.Failed[i] + v.Cancelled[i]
		total, most = total+n, max(most, n)
	}
	if v.Sentence = "No trial" + which + " has ended in the last hour."; total == 1 {
		v.Sentence = "1 trial" + which + " ended in the last hour."
	} else if total > 1 {
		v.Sentence = fmt.Sprintf("%d trials%s ended in the last hour, at most %d in a minute.", total, which, most)
	}
	return v, nil
}

// countEnds adds the trials of a sweep that ended at or after a time, in seconds since its first
// event.
func countEnds(v *api.Rate, c *history.Columns, from float64) {
	ends := c.Values[history.ColumnEnded]
	for r, place := range c.State {
		if place == 0 || !grid.States[place-1].Terminal() {
			continue
		}
		step := (float64(ends[r]) - from) / rateStep.Seconds()
		if !(step >= 0 && step < rateSteps) {
			continue
		}
		to := v.Cancelled
		switch grid.States[place-1] {
		case grid.Succeeded:
			to = v.Succeeded
		case grid.Failed:
			to = v.Failed
		}
		to[int(step)] += int64(c.Stride)
	}
}

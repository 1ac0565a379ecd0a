package monitor

import (
	"maps"
	"time"

	"mlfnode/grid"
)

// rates measure the throughput of sweeps. They belong to the hub's goroutine.
type rates struct {
	marks  map[grid.SweepID][2]sample
	moving map[grid.SweepID]bool // sweeps that the overview had last; true for those of which something ran or would
}

// sample is how many trials had ended at a time.
type sample struct {
	at   time.Time
	done int64
}

// rateSpan is about how far back a rate looks.
const rateSpan = 10 * time.Second

// prune removes the sweeps that have not been read for a while, because they ended or have no
// subscribers.
func (r *rates) prune(now time.Time) {
	maps.DeleteFunc(r.marks, func(_ grid.SweepID, m [2]sample) bool { return now.Sub(m[1].at) > 3*rateSpan })
}

func (r *rates) update(id grid.SweepID, done int64, now time.Time) float64 {
	marks, ok := r.marks[id]
	if !ok || done < marks[0].done { // trials that are run again count as not ended
		marks = [2]sample{{now, done}, {now, done}}
	}
	if now.Sub(marks[1].at) > rateSpan {
		marks = [2]sample{marks[1], {now, done}}
	}
	r.marks[id] = marks
	span := now.Sub(marks[0].at).Seconds()
	if span < 1 {
		return 0
	}
	return float64(int64(1000*float64(done-marks[0].done)/span)) / 1000
}

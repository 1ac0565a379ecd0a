package monitor

import (
	"maps"
	"time"

	"mlfnode/grid"
)

// rates measure the throughput of sweeps. They belong to the hub's goroutine.
type rates struct {
	marks map[grid.SweepID][2]sample
	// sweeps in the last overview; true for those with trials that were running or were going to
	// run
	moving map[grid.SweepID]bool
}

// sample is the number of trials that had ended at a time.
type sample struct {
	at   time.Time
	done int64
}

// rateSpan is approximately how far back a rate looks.
const rateSpan = 10 * time.Second

// prune removes the sweeps that have not been read for a while, because they ended or have no
// subscribers.
func (r *rates) prune(now time.Time) {
	maps.DeleteFunc(r.marks, func(_ grid.SweepID, m [2]sample) bool { return now.Sub(m[1].at) > 3*rateSpan })
}

func (r *rates) update(id grid.SweepID, done int64, now time.Time) float64 {
	marks, ok := r.marks[id]
	if !ok || done < marks[0].done { // trials that are run again no longer count as ended
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

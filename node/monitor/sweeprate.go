package monitor

import (
	"maps"
	"time"

	"mlfnode/grid"
)

// rates tell how fast sweeps go on. They belong to the hub's goroutine.
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

// prune forgets the sweeps that have not been looked at for a while: they have come to their end, or nobody wants them.
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

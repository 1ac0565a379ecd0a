package master

import (
	"context"
	"maps"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// Activity is what a master has observed since it started, and what it has leased now.
type Activity struct {
	Finished  map[grid.State]int64      // trials that have ended
	Attempts  map[grid.Class]int64      // attempts that have ended
	Retries   map[grid.Class]int64      // attempts after which the trial runs again
	Durations map[grid.State]*Durations // of attempts
	// Waits are of trials that run for longer than a moment, from the lease to the start; when a
	// trial could have been leased is not recorded.
	Waits *Durations

	Tasks map[TaskOf]*TaskActivity // some thousand at most; further ones are not counted here

	Leases int           // in the queue and at nodes
	Oldest time.Duration // age of the oldest lease that no node has taken
}

// TaskOf is a task on a node.
type TaskOf struct {
	Node grid.NodeID
	Task string // PROJECT.TASK
}

// TaskActivity is what a node has done of a task.
type TaskActivity struct {
	Events  map[string]int64 // by the names that Celery gives events
	Runtime *Durations       // of successful attempts
}

// maxTasks bounds Activity.Tasks.
const maxTasks = 2000

// Durations counts durations by length.
type Durations struct {
	// Counts are of the durations up to the bound at the same place in DurationBounds and above the
	// one before. The last is of those above all bounds.
	Counts []int64
	Sum    float64 // seconds
}

// DurationBounds returns the upper bounds of the histogram, in seconds: from a program that does
// nothing to a week.
func DurationBounds() []float64 {
	const hour, day = 3600, 24 * 3600
	return []float64{0.1, 0.5, 1, 5, 15, 60, 5 * 60, 15 * 60, hour, 4 * hour, 12 * hour, day, 3 * day, 7 * day}
}

func newDurations() *Durations { return &Durations{Counts: make([]int64, len(DurationBounds())+1)} }

func (d *Durations) add(seconds float64) {
	at, _ := slices.BinarySearch(DurationBounds(), seconds)
	d.Counts[at]++
	d.Sum += seconds
}

// Cumulative returns how many durations are up to each bound of DurationBounds, and how many there
// are.
func (d *Durations) Cumulative() (upTo map[float64]uint64, count uint64) {
	upTo = map[float64]uint64{}
	for i, bound := range DurationBounds() {
		count += uint64(d.Counts[i])
		upTo[bound] = count
	}
	return upTo, count + uint64(d.Counts[len(d.Counts)-1])
}

func (d *Durations) clone() *Durations { return &Durations{slices.Clone(d.Counts), d.Sum} }

// record counts a transition of a trial. f is nil for a sweep that is not active.
func (a *Activity) record(f *feed, t *history.Transition) {
	state := t.State
	a.recordTask(f, t)
	switch t.Change {
	case grid.Began:
		var leased time.Time // the oldest lease of the trial
		if f != nil {
			for _, id := range f.leasesOver(t.Index, "") {
				if since := f.leases[id].since; leased.IsZero() || since.Before(leased) {
					leased = since
				}
			}
		}
		if !leased.IsZero() {
			a.Waits.add(max(0, time.UnixMicro(t.Started).Sub(leased).Seconds()))
		}
		return
	case grid.Retry:
		a.Retries[t.Class]++
		state = grid.Failed
	case grid.Done:
		a.Finished[t.State]++
		if t.Node == "" { // nothing of it ran
			return
		}
	default:
		return
	}
	a.Attempts[t.Class]++
	d := a.Durations[state]
	if d == nil {
		d = newDurations()
		a.Durations[state] = d
	}
	d.add(seconds(t.Ended - t.Started))
}

// recordTask counts a transition for the trial's node and task.
func (a *Activity) recordTask(f *feed, t *history.Transition) {
	event := ""
	switch {
	case t.Change == grid.Began:
		event = "task-started"
	case t.Change == grid.Retry:
		event = "task-retried"
	case t.Change != grid.Done:
		return
	case t.State == grid.Succeeded:
		event = "task-succeeded"
	case t.State == grid.Failed:
		event = "task-failed"
	default:
		event = "task-revoked"
	}
	if f == nil {
		return
	}
	of := TaskOf{t.Node, f.task}
	c := a.Tasks[of]
	if c == nil {
		if len(a.Tasks) >= maxTasks {
			return
		}
		c = &TaskActivity{Events: map[string]int64{}, Runtime: newDurations()}
		a.Tasks[of] = c
	}
	c.Events[event]++
	if t.State == grid.Succeeded {
		c.Runtime.add(seconds(t.Ended - t.Started))
	}
}

func seconds(us int64) float64 { return float64(max(0, us)) / 1e6 }

// Activity returns what the master has observed.
func (q *inspector) Activity(ctx context.Context) (*Activity, error) {
	return ask(ctx, q.m.inbox, func(s *scheduler) *Activity {
		a := &Activity{
			Finished: maps.Clone(s.activity.Finished), Attempts: maps.Clone(s.activity.Attempts),
			Retries: maps.Clone(s.activity.Retries), Durations: map[grid.State]*Durations{},
			Waits: s.activity.Waits.clone(), Tasks: map[TaskOf]*TaskActivity{},
		}
		for state, d := range s.activity.Durations {
			a.Durations[state] = d.clone()
		}
		for of, c := range s.activity.Tasks {
			a.Tasks[of] = &TaskActivity{maps.Clone(c.Events), c.Runtime.clone()}
		}
		for _, f := range s.feeds {
			a.Leases += len(f.leases)
			for id, l := range f.leases {
				if !q.m.cfg.Store.Queue.WasGranted(id) {
					a.Oldest = max(a.Oldest, time.Since(l.since))
				}
			}
		}
		return a
	})
}

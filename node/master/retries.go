package master

import (
	"container/heap"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// retries are the trials that wait for a further attempt, apart by what that is to get. Of those that need not wait for a time only
// ranges are kept, so that a million of them, as a retry by a user makes, weigh no more than one. The zero value is empty.
type retries struct {
	byNeed map[grid.Resources]*waiting // none is empty
	later  map[int64]*waiter           // those whose time has not come, as of the last call of due
	count  int
}

// waiting are the trials whose next attempts get the same.
type waiting struct {
	later waiters
	ready []*ready // none is empty
}

// ready are trials whose next attempts may begin at once. All of it but the trials is the same for each.
type ready struct {
	attempt int
	manner  manner
	trials  ranges.Set
}

// manner says in which way a further attempt is leased.
type manner uint8

const (
	inRanges  manner = iota // together with its neighbours
	alone                   // in a lease of its own, since it avoids nodes
	announced               // in a lease of its own, and its node tells of it before it begins: nodes have died under the trial
)

// waiter is one trial that waits.
type waiter struct {
	index   int64
	attempt int
	manner  manner
	need    grid.Resources
	due     time.Time // zero for at once
	pos     int
}

func (r *retries) len() int { return r.count }

func (r *retries) has(i int64) bool {
	_, ok := r.find(i)
	return ok
}

// find gives the attempt of trial i that waits.
func (r *retries) find(i int64) (waiter, bool) {
	if w := r.later[i]; w != nil {
		return *w, true
	}
	for need, q := range r.byNeed {
		for _, set := range q.ready {
			if set.trials.Has(i) {
				return waiter{index: i, attempt: set.attempt, manner: set.manner, need: need}, true
			}
		}
	}
	return waiter{}, false
}

// add queues an attempt of a trial, or moves the one that is queued.
func (r *retries) add(w waiter) {
	if old, ok := r.find(w.index); ok {
		w.attempt, w.manner = max(w.attempt, old.attempt), max(w.manner, old.manner)
		r.remove(w.index, w.index+1)
	}
	if r.byNeed == nil {
		r.byNeed, r.later = map[grid.Resources]*waiting{}, map[int64]*waiter{}
	}
	q := r.byNeed[w.need]
	if q == nil {
		q = &waiting{}
		r.byNeed[w.need] = q
	}
	r.count++
	if w.due.IsZero() {
		q.set(w.attempt, w.manner).Add(w.index, w.index+1)
		return
	}
	r.later[w.index] = &w
	heap.Push(&q.later, &w)
}

// set gives the trials that are leased alike.
func (q *waiting) set(attempt int, m manner) *ranges.Set {
	for _, set := range q.ready {
		if set.attempt == attempt && set.manner == m {
			return &set.trials
		}
	}
	set := &ready{attempt: attempt, manner: m}
	q.ready = append(q.ready, set)
	return &set.trials
}

// addRange queues the same attempt of trials of which none is queued, to begin at once.
func (r *retries) addRange(trials ranges.Range, attempt int, need grid.Resources) {
	first := waiter{index: trials.Lo, attempt: attempt, need: need}
	r.add(first)
	set := r.byNeed[need].set(attempt, inRanges)
	set.Add(trials.Lo, trials.Hi)
	r.count += int(trials.Hi - trials.Lo - 1)
}

// remove takes the trials [lo,hi) out.
func (r *retries) remove(lo, hi int64) {
	if lo+1 == hi && r.later[lo] != nil {
		w := r.later[lo]
		heap.Remove(&r.byNeed[w.need].later, w.pos)
		r.forget(w)
		return
	}
	for need, q := range r.byNeed {
		for _, set := range q.ready {
			before := set.trials.Count()
			set.trials.Remove(lo, hi)
			r.count -= int(before - set.trials.Count())
		}
		q.ready = slices.DeleteFunc(q.ready, func(set *ready) bool { return set.trials.Count() == 0 })
		r.tidy(need)
	}
}

// forget drops what is known of a waiter that is not in its heap any more.
func (r *retries) forget(w *waiter) {
	delete(r.later, w.index)
	r.count--
	r.tidy(w.need)
}

func (r *retries) tidy(need grid.Resources) {
	if q := r.byNeed[need]; len(q.later) == 0 && len(q.ready) == 0 {
		delete(r.byNeed, need)
	}
}

// due gives trials with this need whose time has come and that may be in one lease; they stay queued until removed.
func (r *retries) due(need grid.Resources, now time.Time) (trials ranges.Range, attempt int, m manner, ok bool) {
	q := r.byNeed[need]
	if q == nil {
		return trials, 0, inRanges, false
	}
	for len(q.later) > 0 && !q.later[0].due.After(now) {
		w := heap.Pop(&q.later).(*waiter)
		delete(r.later, w.index)
		q.set(w.attempt, w.manner).Add(w.index, w.index+1)
	}
	if len(q.ready) == 0 {
		return trials, 0, inRanges, false
	}
	set := q.ready[0]
	trials, _ = set.trials.First()
	if set.manner != inRanges {
		trials.Hi = trials.Lo + 1
	}
	return trials, set.attempt, set.manner, true
}

// waiters implements heap.Interface: the attempt that is due first is on top.
type waiters []*waiter

func (w waiters) Len() int { return len(w) }
func (w waiters) Less(i, j int) bool {
	if w[i].due.Equal(w[j].due) {
		return w[i].index < w[j].index
	}
	return w[i].due.Before(w[j].due)
}
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].pos, w[j].pos = i, j
}
func (w *waiters) Push(x any) {
	e := x.(*waiter)
	e.pos = len(*w)
	*w = append(*w, e)
}
func (w *waiters) Pop() any {
	old := *w
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return e
}

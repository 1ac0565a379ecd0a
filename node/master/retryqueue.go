package master

import (
	"container/heap"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// retryQueue holds the trials that wait for a further attempt, grouped by the resources of that
// attempt. Of those that are ready only ranges are kept, so that a million of them, as a user's
// retry makes, take no more memory than one. The zero value is empty.
type retryQueue struct {
	byNeed  map[grid.Resources]*retryGroup // no group is empty
	delayed map[int64]*retry               // trials that were not due at the last call of due
	count   int
}

// retryGroup holds the trials whose next attempts get the same resources.
type retryGroup struct {
	delayed retryHeap
	ready   []*readySet // no set is empty
}

// readySet holds trials whose next attempts may start immediately and that differ in nothing else.
type readySet struct {
	attempt int
	mode    leaseMode
	trials  ranges.Set
}

// leaseMode says how a further attempt is leased.
type leaseMode uint8

const (
	modeRange  leaseMode = iota // together with its neighbours
	modeSingle                  // in a lease of its own, since it avoids nodes
	// modeAnnounced is modeSingle in a lease whose node announces the attempt before it starts:
	// nodes have died under the trial.
	modeAnnounced
)

// retry is one trial that waits.
type retry struct {
	index     int64
	attempt   int
	mode      leaseMode
	need      grid.Resources
	due       time.Time // zero for now
	heapIndex int
}

func (r *retryQueue) len() int { return r.count }

func (r *retryQueue) has(i int64) bool {
	_, ok := r.find(i)
	return ok
}

// find returns the waiting attempt of trial i.
func (r *retryQueue) find(i int64) (retry, bool) {
	if w := r.delayed[i]; w != nil {
		return *w, true
	}
	for need, q := range r.byNeed {
		for _, set := range q.ready {
			if set.trials.Has(i) {
				return retry{index: i, attempt: set.attempt, mode: set.mode, need: need}, true
			}
		}
	}
	return retry{}, false
}

// add queues an attempt of a trial, or moves the one that is queued.
func (r *retryQueue) add(w retry) {
	if old, ok := r.find(w.index); ok {
		w.attempt, w.mode = max(w.attempt, old.attempt), max(w.mode, old.mode)
		r.remove(w.index, w.index+1)
	}
	if r.byNeed == nil {
		r.byNeed, r.delayed = map[grid.Resources]*retryGroup{}, map[int64]*retry{}
	}
	q := r.byNeed[w.need]
	if q == nil {
		q = &retryGroup{}
		r.byNeed[w.need] = q
	}
	r.count++
	if w.due.IsZero() {
		q.trialsFor(w.attempt, w.mode).Add(w.index, w.index+1)
		return
	}
	r.delayed[w.index] = &w
	heap.Push(&q.delayed, &w)
}

// trialsFor returns the trials that are leased alike.
func (q *retryGroup) trialsFor(attempt int, m leaseMode) *ranges.Set {
	for _, set := range q.ready {
		if set.attempt == attempt && set.mode == m {
			return &set.trials
		}
	}
	set := &readySet{attempt: attempt, mode: m}
	q.ready = append(q.ready, set)
	return &set.trials
}

// addRange queues the same attempt of trials to start immediately, in place of what is queued of
// them.
func (r *retryQueue) addRange(trials ranges.Range, attempt int, need grid.Resources) {
	r.remove(trials.Lo, trials.Hi)
	for i := range r.delayed {
		if trials.Lo <= i && i < trials.Hi {
			r.remove(i, i+1)
		}
	}
	r.add(retry{index: trials.Lo, attempt: attempt, need: need})
	set := r.byNeed[need].trialsFor(attempt, modeRange)
	set.Add(trials.Lo, trials.Hi)
	r.count += int(trials.Hi - trials.Lo - 1)
}

// remove removes the trials [lo,hi).
func (r *retryQueue) remove(lo, hi int64) {
	if lo+1 == hi && r.delayed[lo] != nil {
		w := r.delayed[lo]
		heap.Remove(&r.byNeed[w.need].delayed, w.heapIndex)
		r.dropDelayed(w)
		return
	}
	for need, q := range r.byNeed {
		for _, set := range q.ready {
			before := set.trials.Count()
			set.trials.Remove(lo, hi)
			r.count -= int(before - set.trials.Count())
		}
		q.ready = slices.DeleteFunc(q.ready, func(set *readySet) bool { return set.trials.Count() == 0 })
		r.removeIfEmpty(need)
	}
}

// dropDelayed forgets a retry that is no longer in its heap.
func (r *retryQueue) dropDelayed(w *retry) {
	delete(r.delayed, w.index)
	r.count--
	r.removeIfEmpty(w.need)
}

func (r *retryQueue) removeIfEmpty(need grid.Resources) {
	if q := r.byNeed[need]; len(q.delayed) == 0 && len(q.ready) == 0 {
		delete(r.byNeed, need)
	}
}

// due returns trials with this need that are due and may share a lease; they stay queued until they
// are removed.
func (r *retryQueue) due(need grid.Resources, now time.Time) (trials ranges.Range, attempt int, m leaseMode, ok bool) {
	q := r.byNeed[need]
	if q == nil {
		return trials, 0, modeRange, false
	}
	for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
		w := heap.Pop(&q.delayed).(*retry)
		delete(r.delayed, w.index)
		q.trialsFor(w.attempt, w.mode).Add(w.index, w.index+1)
	}
	if len(q.ready) == 0 {
		return trials, 0, modeRange, false
	}
	set := q.ready[0]
	trials, _ = set.trials.First()
	if set.mode != modeRange {
		trials.Hi = trials.Lo + 1
	}
	return trials, set.attempt, set.mode, true
}

// retryHeap implements heap.Interface: the attempt that is due first is on top.
type retryHeap []*retry

func (w retryHeap) Len() int { return len(w) }
func (w retryHeap) Less(i, j int) bool {
	if w[i].due.Equal(w[j].due) {
		return w[i].index < w[j].index
	}
	return w[i].due.Before(w[j].due)
}
func (w retryHeap) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].heapIndex, w[j].heapIndex = i, j
}
func (w *retryHeap) Push(x any) {
	e := x.(*retry)
	e.heapIndex = len(*w)
	*w = append(*w, e)
}
func (w *retryHeap) Pop() any {
	old := *w
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return e
}

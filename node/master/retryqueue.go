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
type retryQueue struct {
	byNeed  map[grid.Resources]*retryGroup // none is empty
	delayed map[int64]*retry               // those whose time has not come, as of the last call of due
	count   int
}

// waiting are the trials whose next attempts get the same.
type retryGroup struct {
	delayed retryHeap
	ready   []*readySet // none is empty
}

// ready are trials whose next attempts may begin at once. All of it but the trials is the same for each.
type readySet struct {
	attempt int
	mode    leaseMode
	trials  ranges.Set
}

// manner says in which way a further attempt is leased.
type leaseMode uint8

const (
	modeRange     leaseMode = iota // together with its neighbours
	modeSingle                     // in a lease of its own, since it avoids nodes
	modeAnnounced                  // in a lease of its own, and its node tells of it before it begins: nodes have died under the trial
)

// waiter is one trial that waits.
type retry struct {
	index     int64
	attempt   int
	mode      leaseMode
	need      grid.Resources
	due       time.Time // zero for at once
	heapIndex int
}

func (r *retryQueue) len() int { return r.count }

func (r *retryQueue) has(i int64) bool {
	_, ok := r.find(i)
	return ok
}

// find gives the attempt of trial i that waits.
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

// set gives the trials that are leased alike.
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

// addRange queues the same attempt of trials of which none is queued, to begin at once.
func (r *retryQueue) addRange(trials ranges.Range, attempt int, need grid.Resources) {
	first := retry{index: trials.Lo, attempt: attempt, need: need}
	r.add(first)
	set := r.byNeed[need].trialsFor(attempt, modeRange)
	set.Add(trials.Lo, trials.Hi)
	r.count += int(trials.Hi - trials.Lo - 1)
}

// remove takes the trials [lo,hi) out.
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

// forget drops what is known of a waiter that is not in its heap any more.
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

// due gives trials with this need whose time has come and that may be in one lease; they stay queued until removed.
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

// waiters implements heap.Interface: the attempt that is due first is on top.
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

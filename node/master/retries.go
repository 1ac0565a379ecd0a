package master

import (
	"container/heap"
	"time"
)

// retries are the trials that wait for a further attempt, the one that is due first on top. The zero value is empty.
type retries struct {
	heap  waiting
	index map[int64]*waiter
}

type waiter struct {
	index   int64
	attempt int
	due     time.Time
	pos     int
}

func (r *retries) len() int { return len(r.heap) }

func (r *retries) has(i int64) bool { return r.index[i] != nil }

// add queues an attempt of trial i, or moves the one that is queued.
func (r *retries) add(i int64, attempt int, due time.Time) {
	if w := r.index[i]; w != nil {
		w.attempt, w.due = max(w.attempt, attempt), due
		heap.Fix(&r.heap, w.pos)
		return
	}
	if r.index == nil {
		r.index = map[int64]*waiter{}
	}
	w := &waiter{index: i, attempt: attempt, due: due}
	r.index[i] = w
	heap.Push(&r.heap, w)
}

func (r *retries) remove(i int64) {
	if w := r.index[i]; w != nil {
		heap.Remove(&r.heap, w.pos)
		delete(r.index, i)
	}
}

// due gives the first attempt whose time has come; it stays queued until removed.
func (r *retries) due(now time.Time) (waiter, bool) {
	if len(r.heap) == 0 || r.heap[0].due.After(now) {
		return waiter{}, false
	}
	return *r.heap[0], true
}

// waiting implements heap.Interface.
type waiting []*waiter

func (w waiting) Len() int { return len(w) }
func (w waiting) Less(i, j int) bool {
	if w[i].due.Equal(w[j].due) {
		return w[i].index < w[j].index
	}
	return w[i].due.Before(w[j].due)
}
func (w waiting) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].pos, w[j].pos = i, j
}
func (w *waiting) Push(x any) {
	e := x.(*waiter)
	e.pos = len(*w)
	*w = append(*w, e)
}
func (w *waiting) Pop() any {
	old := *w
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return e
}

package master

import (
	"container/heap"
	"time"

	"mlfnode/grid"
)

// retries are the trials that wait for a further attempt, apart by what that is to get. The zero value is empty.
type retries struct {
	byNeed map[grid.Resources]*waiting // none is empty
	index  map[int64]*waiter
}

type waiter struct {
	index   int64
	attempt int
	need    grid.Resources
	due     time.Time
	pos     int
}

func (r *retries) len() int { return len(r.index) }

func (r *retries) has(i int64) bool { return r.index[i] != nil }

// add queues an attempt of trial i, or moves the one that is queued.
func (r *retries) add(i int64, attempt int, need grid.Resources, due time.Time) {
	if w := r.index[i]; w != nil {
		attempt = max(w.attempt, attempt)
		r.remove(i)
	}
	if r.index == nil {
		r.index, r.byNeed = map[int64]*waiter{}, map[grid.Resources]*waiting{}
	}
	w := &waiter{index: i, attempt: attempt, need: need, due: due}
	r.index[i] = w
	if r.byNeed[need] == nil {
		r.byNeed[need] = &waiting{}
	}
	heap.Push(r.byNeed[need], w)
}

func (r *retries) remove(i int64) {
	w := r.index[i]
	if w == nil {
		return
	}
	delete(r.index, i)
	if queue := r.byNeed[w.need]; queue.Len() > 1 {
		heap.Remove(queue, w.pos)
	} else {
		delete(r.byNeed, w.need)
	}
}

// due gives the first attempt with this need whose time has come; it stays queued until removed.
func (r *retries) due(need grid.Resources, now time.Time) (waiter, bool) {
	queue := r.byNeed[need]
	if queue == nil || (*queue)[0].due.After(now) {
		return waiter{}, false
	}
	return *(*queue)[0], true
}

// waiting implements heap.Interface: the attempt that is due first is on top.
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

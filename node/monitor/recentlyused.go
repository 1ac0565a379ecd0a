package monitor

import (
	"slices"
	"sync"
	"time"
)

// recentlyUsed keeps the values that were used last, until none has been used for some time.
type recentlyUsed[T any] struct {
	most int
	ttl  time.Duration

	mu     sync.Mutex
	kept   []T // the most recently used one last
	expiry *time.Timer
}

// find returns a value that matches, and keeps all for longer.
func (r *recentlyUsed[T]) find(matches func(T) bool) (v T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.kept, matches)
	if i < 0 {
		return v, false
	}
	v = r.kept[i]
	r.kept = append(slices.Delete(r.kept, i, i+1), v)
	r.expiry.Reset(r.ttl)
	return v, true
}

// add keeps a value in place of those that it replaces, and drops the least recently used one if
// there are too many.
func (r *recentlyUsed[T]) add(v T, replaces func(T) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(slices.DeleteFunc(r.kept, replaces), v)
	if len(r.kept) > r.most {
		r.kept = slices.Delete(r.kept, 0, 1)
	}
	if r.expiry != nil {
		r.expiry.Stop()
	}
	r.expiry = time.AfterFunc(r.ttl, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.kept = nil
	})
}

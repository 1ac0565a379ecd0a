package process

import "sync"

// slotThreads are the threads of this process that sit in the v1 cgroup of a slot, each in one.
type slotThreads struct {
	mu  sync.Mutex
	ids map[int]struct{}
}

// claim reserves a thread for one slot, unless another slot has it.
func (t *slotThreads) claim(tid int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.ids[tid]; taken {
		return false
	}
	if t.ids == nil {
		t.ids = map[int]struct{}{}
	}
	t.ids[tid] = struct{}{}
	return true
}

func (t *slotThreads) release(tid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ids, tid)
}

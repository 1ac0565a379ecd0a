package worker

import (
	"sync"
	"time"

	"mlfnode/node/worker/allocator"
)

// runner is a goroutine with an executor slot of its own. It keeps both between leases: a slot is
// fastest on the goroutine that created it.
type runner struct {
	assignments chan assignment
	done        sync.WaitGroup
}

// assignment is one lease to work on, with the lane whose resources are reserved for it.
type assignment struct {
	handle     *leaseHandle
	lane       lane
	allocation *allocator.Allocation
	startedAt  time.Time
	manifest   *manifestTemplate
	environ    *leaseEnviron
}

// runnerPool keeps the runners that have no lease.
type runnerPool struct {
	work    func(*runner)  // handles the runner's assignments until they are closed
	running sync.WaitGroup // assignments, adopted attempts and searches for preemption victims

	mu   sync.Mutex
	idle []*runner
}

// get returns an idle runner, or a new one.
func (p *runnerPool) get() *runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return r
	}
	r := &runner{assignments: make(chan assignment, 1)}
	r.done.Go(func() { p.work(r) })
	return r
}

// put makes a runner idle.
func (p *runnerPool) put(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, r)
}

// close ends all runners, which must be idle.
func (p *runnerPool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, r := range idle {
		close(r.assignments)
		r.done.Wait()
	}
}

package node

import (
	"sync"
	"sync/atomic"

	"mlfnode/cluster/inventory"
	"mlfnode/node/worker"
)

// workerPart is the worker of a node and what is decided about it from outside. A node in a cluster
// has no worker before it has found its master; what was decided by then applies to it immediately.
type workerPart struct {
	stopping atomic.Bool // somebody asked for the end of this node: Close ends its programs, too
	atWork   *latch      // set once a node of a cluster takes trials

	mu     sync.Mutex
	worker *worker.Worker
	limits inventory.Machine // of the processors and the memory that trials may have
	policy worker.Policy
}

// working returns the worker, nil as long as there is none.
func (p *workerPart) working() *worker.Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.worker
}

// setWorker sets the worker.
func (p *workerPart) setWorker(w *worker.Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.worker = w
	w.SetHandover(!p.stopping.Load())
	p.applyLocked() // the settings may have been read again since the worker was made
}

// configure sets what trials may have of the machine.
func (p *workerPart) configure(cpus float64, memory int64, policy worker.Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits.CPUs, p.limits.Memory, p.policy = cpus, memory, policy
	if p.worker != nil {
		p.applyLocked()
	}
}

func (p *workerPart) applyLocked() {
	p.worker.Devices.Resize(inventory.Machine{CPUs: p.limits.CPUs, Memory: p.limits.Memory})
	p.worker.Devices.SetPolicy(p.policy)
}

// Working is closed once the node takes trials.
func (p *workerPart) Working() <-chan struct{} { return p.atWork.done() }

// takesTrials reports whether the node has come to take trials.
func (p *workerPart) takesTrials() bool {
	select {
	case <-p.atWork.done():
		return true
	default:
		return false
	}
}

// Hurry kills the programs that Close waits for.
func (p *workerPart) Hurry() {
	if w := p.working(); w != nil {
		w.SkipGrace()
	}
}

// Stop records that somebody asked this node to end, so that Close ends its programs. Without it
// they wait for the next agent.
func (p *workerPart) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping.Store(true)
	if p.worker != nil {
		p.worker.SetHandover(false)
	}
}

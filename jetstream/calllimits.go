package jetstream

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"mlfnode/grid"
)

const (
	// maxNodeCalls and maxAllCalls bound the calls of one node, and of all nodes, that are handled
	// at a time. Further calls get errBusy: a node makes at most three at a time.
	maxNodeCalls = 8
	maxAllCalls  = 1024
	// inlineRate is how many bytes of inline calls, which are answered one after the other, a node
	// may send in a second, with inlineCost added to each: a heartbeat has some hundred bytes for
	// each lease.
	inlineRate = 8 << 20
	inlineCost = 8 << 10
	// callRate is how many calls of any kind a node may send in a second, and callBurst how many at
	// once. It is far more than a node sends that waits for answers. Without this limit, one node
	// could fill the queue of waiting calls for all nodes. The calls of a node above it are
	// dropped, its connection is closed, and the node is blocked for a while, once in a
	// blockInterval at most: earlier calls may still wait. blockLogInterval is how often that is
	// logged.
	callRate         = 16 << 10
	callBurst        = 8 << 10
	blockInterval    = 100 * time.Millisecond
	blockLogInterval = time.Minute
)

// callLimits bounds the calls of nodes that are handled at a time, and what each node sends.
type callLimits struct {
	running sync.WaitGroup // for the calls in progress

	mu            sync.Mutex
	inProgress    map[grid.NodeID]int        // calls in progress
	rates         map[grid.NodeID]*callRates // of nodes that have called recently
	allInProgress int
	closed        bool // no further call is admitted
}

// callRates limit what one node sends.
type callRates struct {
	calls       *rate.Limiter // all calls
	inlineBytes *rate.Limiter // bytes of inline calls
	block       rate.Sometimes
	blockLog    rate.Sometimes
	lastCall    time.Time // guarded by callLimits.mu
}

// rateAge is the time without a call after which a node's rates are discarded: the limiters are
// full again, and warnings are due again.
const rateAge = 2 * blockLogInterval

// ratesFor returns the rates of a node.
func (l *callLimits) ratesFor(node grid.NodeID) *callRates {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, now := l.rates[node], time.Now()
	if r == nil {
		maps.DeleteFunc(l.rates, func(_ grid.NodeID, r *callRates) bool { return now.Sub(r.lastCall) > rateAge })
		r = &callRates{
			calls: rate.NewLimiter(callRate, callBurst), inlineBytes: rate.NewLimiter(inlineRate, inlineRate),
			block: rate.Sometimes{Interval: blockInterval}, blockLog: rate.Sometimes{Interval: blockLogInterval},
		}
		l.rates[node] = r
	}
	r.lastCall = now
	return r
}

// admit reports whether one more call of a node may be handled. If so, release must follow.
func (l *callLimits) admit(node grid.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.inProgress[node] >= maxNodeCalls || l.allInProgress >= maxAllCalls {
		return false
	}
	l.inProgress[node]++
	l.allInProgress++
	l.running.Add(1)
	return true
}

func (l *callLimits) release(node grid.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allInProgress--
	if l.inProgress[node]--; l.inProgress[node] == 0 {
		delete(l.inProgress, node)
	}
	l.running.Done()
}

// close admits no further call, and waits until those in progress have ended.
func (l *callLimits) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.running.Wait()
}

package master

import (
	"context"
	"errors"
	"sync"
)

// inbox is the only door into the scheduler. It holds functions that the scheduler's goroutine
// runs, one after the other and in order. A caller chooses what it waits for:
//
//	post  for nothing: it never blocks, as in the answer to a heartbeat
//	send  for room: of what is sent, only maxSent functions may be waiting, so that whoever
//	      produces records and folds faster than they are applied is slowed down
//	call  until the function has run
type inbox struct {
	mu     sync.Mutex
	queue  []letter
	wake   chan struct{} // holds a token when the scheduler has something to do
	sent   chan struct{} // holds a token for each sent function that has not run
	closed chan struct{} // closed when the master is about to end
}

// letter is a function in an inbox.
type letter struct {
	run  func(*scheduler)
	sent bool
}

// maxSent bounds the functions that are sent and have not run.
const maxSent = 16

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), sent: make(chan struct{}, maxSent), closed: make(chan struct{})}
}

// post queues a function and returns at once.
func (q *inbox) post(run func(*scheduler)) { q.add(letter{run: run}) }

// send queues a function once there is room. The queue of leases is topped up after each sent
// function, and not only after a series of them.
func (q *inbox) send(ctx context.Context, run func(*scheduler)) error {
	select {
	case q.sent <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	q.add(letter{sent: true, run: func(s *scheduler) {
		<-q.sent
		run(s)
	}})
	return nil
}

// call queues a function and waits until it has run. It returns errEnded when the master ends first.
func (q *inbox) call(ctx context.Context, run func(*scheduler)) error {
	done := make(chan struct{})
	q.post(func(s *scheduler) {
		run(s)
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-q.closed:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errEnded says that the master has ended and decides nothing more.
var errEnded = errors.New("the master has ended")

// Kick makes the scheduler look for trials to lease, because more nodes may be up.
func (q *inbox) Kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *inbox) add(l letter) {
	q.mu.Lock()
	q.queue = append(q.queue, l)
	q.mu.Unlock()
	q.Kick()
}

// run runs the queued functions up to the first one that was sent.
func (q *inbox) run(s *scheduler) {
	q.mu.Lock()
	n := 0
	for n < len(q.queue) && (n == 0 || !q.queue[n-1].sent) {
		n++
	}
	batch := q.queue[:n:n]
	if q.queue = q.queue[n:]; len(q.queue) == 0 {
		q.queue = nil
	} else {
		q.Kick()
	}
	q.mu.Unlock()
	for _, l := range batch {
		l.run(s)
	}
}

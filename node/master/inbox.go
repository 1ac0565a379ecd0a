package master

import (
	"context"
	"errors"
	"sync"

	"mlfnode/node/poll"
)

// inbox is the only way into the scheduler. It holds functions that the scheduler's goroutine
// runs one after the other. A caller chooses what it waits for:
//
//	post  for nothing: it never blocks, as in the answer to a heartbeat
//	send  for room: of what is sent, only maxSent functions may be waiting, so that whoever
//	      produces records and folds faster than they are applied is slowed down
//	call  until the function has run
//
// Functions of one kind run in order. Those that are posted or called run before those that are
// sent: the death of a node and the question of a person do not wait for a series of folds.
type inbox struct {
	mu     sync.Mutex
	posted []func(*scheduler)
	sent   []func(*scheduler)
	wake   poll.Signal   // the scheduler has something to do
	room   chan struct{} // holds a token for each sent function that has not run
	closed chan struct{} // closed when the master is about to end
}

// maxSent bounds the functions that are sent and have not run.
const maxSent = 16

// post queues a function and returns immediately.
func (q *inbox) post(run func(*scheduler)) {
	q.mu.Lock()
	q.posted = append(q.posted, run)
	q.mu.Unlock()
	q.Kick()
}

// send queues a function once there is room. The queue of leases is topped up after each sent
// function, and not only after a series of them.
func (q *inbox) send(ctx context.Context, run func(*scheduler)) error {
	select {
	case q.room <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	q.mu.Lock()
	q.sent = append(q.sent, run)
	q.mu.Unlock()
	q.Kick()
	return nil
}

// call queues a function and waits until it has run. It returns errEnded when the master ends
// first.
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

// ask returns what fn returns in the scheduler's goroutine. It returns errEnded when the master
// ends first.
func ask[T any](ctx context.Context, q *inbox, fn func(*scheduler) T) (answer T, err error) {
	answers := make(chan T, 1)
	if err := q.call(ctx, func(s *scheduler) { answers <- fn(s) }); err != nil {
		return answer, err
	}
	return <-answers, nil
}

// errEnded says that the master has ended and decides nothing more.
var errEnded = errors.New("the master has ended")

// Kick makes the scheduler look for trials to lease, because more nodes may be up.
func (q *inbox) Kick() { q.wake.Set() }

// run runs all posted functions, and then the next one that was sent.
func (q *inbox) run(s *scheduler) {
	q.mu.Lock()
	batch := q.posted
	q.posted = nil
	if len(q.sent) > 0 {
		batch = append(batch, q.sent[0])
		q.sent[0] = nil
		q.sent = q.sent[1:]
		<-q.room
	}
	if len(q.sent) > 0 {
		q.Kick()
	}
	q.mu.Unlock()
	for _, run := range batch {
		run(s)
	}
}

package process

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// watchdog stops a running attempt from outside: on cancellation, at a time limit, or after too
// long a silence. For an attempt that ends by itself it costs two registrations; it starts
// goroutines only when there is something to do.
type watchdog struct {
	tree    *attemptTree
	attempt *executor.Attempt

	mu      sync.Mutex
	ended   bool        // the program has ended: no more signals
	stopped stopRequest // why and how the program is stopped; zero while it is not

	done    chan struct{} // closed when the program has ended
	stops   []func() bool
	stopper sync.WaitGroup
}

// stopRequest says why an attempt is stopped, and how.
type stopRequest struct {
	class  grid.Class
	reason string
	hard   bool // without grace
	saving bool // it may save its state first
}

func newWatchdog(ctx context.Context, t *attemptTree, a *executor.Attempt) *watchdog {
	w := &watchdog{tree: t, attempt: a}
	if ctx.Done() == nil && a.Timeout <= 0 && a.IdleTimeout <= 0 {
		return w
	}
	w.done = make(chan struct{})
	if ctx.Done() != nil {
		w.onEnd(context.AfterFunc(ctx, func() {
			cause := context.Cause(ctx)
			class, reason := executor.StopVerdict(cause)
			w.stop(stopRequest{
				class: class, reason: reason, hard: errors.Is(cause, executor.ErrKill),
				saving: errors.Is(cause, executor.ErrCancelledSaving),
			})
		}))
	}
	if a.Timeout > 0 {
		limit := time.AfterFunc(a.Timeout, func() {
			w.stop(stopRequest{class: grid.ClassTimeout, reason: executor.TimedOut(a.Timeout)})
		})
		w.onEnd(limit.Stop)
	}
	if a.IdleTimeout > 0 {
		w.stopper.Go(w.idle)
	}
	return w
}

func (w *watchdog) onEnd(stop func() bool) { w.stops = append(w.stops, stop) }

// idle stops the attempt when it prints nothing for too long. It checks eight times per limit.
func (w *watchdog) idle() {
	tick := time.NewTicker(max(w.attempt.IdleTimeout/8, time.Millisecond))
	defer tick.Stop()
	last, grown := w.tree.out.Written(), time.Now()
	for {
		select {
		case <-w.done:
			return
		case now := <-tick.C:
			if n := w.tree.out.Written(); n != last {
				last, grown = n, now
			}
			if now.Sub(grown) >= w.attempt.IdleTimeout {
				w.stop(stopRequest{class: grid.ClassIdle, reason: executor.Silent(w.attempt.IdleTimeout)})
				return
			}
		}
	}
}

// stop ends the tree: notice, grace, KILL. Only the first request counts. It returns when the
// program has ended.
func (w *watchdog) stop(r stopRequest) {
	if !w.claimStop(r) {
		return
	}
	defer w.stopper.Done()
	if !r.hard {
		noticed, grace := w.attempt.NoticePeriod(r.class, r.saving)
		if noticed {
			w.signal(func([]int) { // the program alone
				unix.Kill(w.tree.program, w.attempt.Notice)
				unix.Kill(w.tree.program, unix.SIGCONT) // a stopped program must be continued to receive it
			})
		} else {
			w.signal(w.tree.terminate)
		}
		w.wait(grace)
	}
	tick := time.NewTicker(maxForking)
	defer tick.Stop()
	abandoned := false // only processes of other users are left, and the attempt ends without them
	for foreign := time.Now().Add(foreignTimeout); ; {
		w.signal(func(pids []int) {
			w.tree.kill(pids)
			if !abandoned && time.Now().After(foreign) && w.tree.abandonForeign(pids) {
				abandoned = true
				w.tree.out.abandoned.Store(true)
			}
		})
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
	}
}

// claimStop records why the attempt is stopped, unless it has ended or is already being stopped.
func (w *watchdog) claimStop(r stopRequest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.stopped.class != "" {
		return false
	}
	w.stopped = r
	w.stopper.Add(1)
	return true
}

// wait waits for the program's end, for at most the grace or until the caller cuts it short.
func (w *watchdog) wait(grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	case <-w.attempt.Kill:
		w.mu.Lock()
		w.stopped.hard = true
		w.mu.Unlock()
	}
}

// signal applies send to the whole tree unless the program has ended. It holds the lock, so that a
// signal can never reach the slot's next attempt.
func (w *watchdog) signal(send func([]int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		pids, _ := w.tree.others()
		send(append(pids, w.tree.program))
	}
}

// programEnded records that the program has ended. The program is not reaped yet.
func (w *watchdog) programEnded() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	for _, stop := range w.stops {
		stop()
	}
	if w.done != nil {
		close(w.done)
	}
	w.stopper.Wait()
}

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

// watch stops a running attempt from outside: on cancellation, at a time limit, after too long a silence. It costs two
// registrations for an attempt that ends by itself, and starts goroutines only when there is something to do.
type watch struct {
	tree    *tree
	attempt *executor.Attempt

	mu     sync.Mutex
	ended  bool       // the program has ended: no more signals
	class  grid.Class // why we stopped it
	reason string
	hard   bool // no more grace
	left   bool // other users' processes are all there is, and it ends without them

	saving bool // cancelled, and may save its state first; owned by cancel

	over    chan struct{} // closed when the program has ended
	cutoff  chan struct{} // closed when hard is set
	stops   []func() bool
	stopper sync.WaitGroup
}

func newWatch(ctx context.Context, t *tree, a *executor.Attempt) *watch {
	w := &watch{tree: t, attempt: a}
	if ctx.Done() == nil && a.Timeout <= 0 && a.IdleTimeout <= 0 {
		return w
	}
	w.over, w.cutoff = make(chan struct{}), make(chan struct{})
	if ctx.Done() != nil {
		w.after(context.AfterFunc(ctx, func() { w.cancel(context.Cause(ctx)) }))
	}
	if a.Timeout > 0 {
		limit := time.AfterFunc(a.Timeout, func() {
			w.stop(grid.ClassTimeout, executor.TimedOut(a.Timeout), false)
		})
		w.after(limit.Stop)
	}
	if a.IdleTimeout > 0 {
		w.stopper.Go(w.idle)
	}
	return w
}

func (w *watch) after(stop func() bool) { w.stops = append(w.stops, stop) }

// cancel stops the attempt for the reason that the cause names.
func (w *watch) cancel(cause error) {
	class, reason := executor.Verdict(cause)
	w.saving = errors.Is(cause, executor.ErrCancelledSaving)
	w.stop(class, reason, errors.Is(cause, executor.ErrKill))
}

// idle stops the attempt when it prints nothing more. It looks eight times in each limit.
func (w *watch) idle() {
	tick := time.NewTicker(max(w.attempt.IdleTimeout/8, time.Millisecond))
	defer tick.Stop()
	last, grown := w.tree.out.Seen(), time.Now()
	for {
		select {
		case <-w.over:
			return
		case now := <-tick.C:
			if n := w.tree.out.Seen(); n != last {
				last, grown = n, now
			}
			if now.Sub(grown) >= w.attempt.IdleTimeout {
				w.stop(grid.ClassIdle, executor.Silent(w.attempt.IdleTimeout), false)
				return
			}
		}
	}
}

// stop ends the tree: notice, grace, KILL. The first reason counts. It returns when the program has ended.
func (w *watch) stop(class grid.Class, reason string, hard bool) {
	if !w.claim(class, reason, hard) {
		return
	}
	defer w.stopper.Done()
	if !hard {
		noticed, grace := w.attempt.Noticed(class, w.saving)
		if noticed {
			w.signal(w.notify)
		} else {
			w.signal(w.tree.terminate)
		}
		w.wait(grace)
	}
	tick := time.NewTicker(maxForking)
	defer tick.Stop()
	for foreign := time.Now().Add(foreignTime); ; {
		w.signal(func(pids []int) {
			w.tree.kill(pids)
			if !w.left && time.Now().After(foreign) && w.tree.leave(pids) {
				w.left = true
				w.tree.out.leave.Store(true)
			}
		})
		select {
		case <-w.over:
			return
		case <-tick.C:
		}
	}
}

// notify sends the notice to the program itself.
func (w *watch) notify([]int) {
	unix.Kill(w.tree.main, w.attempt.Notice)
	unix.Kill(w.tree.main, unix.SIGCONT) // a stopped program must go on to hear it
}

// claim records why the attempt is stopped, unless it has ended or is being stopped already.
func (w *watch) claim(class grid.Class, reason string, hard bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.class != "" {
		return false
	}
	w.class, w.reason = class, reason
	if hard {
		w.hardenLocked()
	}
	w.stopper.Add(1)
	return true
}

func (w *watch) hardenLocked() {
	if !w.hard {
		w.hard = true
		close(w.cutoff)
	}
}

// wait waits for the program's end, but no longer than the grace and no longer than the caller's patience.
func (w *watch) wait(grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-w.over:
	case <-timer.C:
	case <-w.attempt.Kill:
		w.mu.Lock()
		w.hardenLocked()
		w.mu.Unlock()
	}
}

// signal applies send to the whole tree while the program has not ended. Under the lock, so that it can never reach the
// slot's next attempt.
func (w *watch) signal(send func([]int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		pids, _ := w.tree.others()
		send(append(pids, w.tree.main))
	}
}

// end says that the program has ended. The program is not awaited yet.
func (w *watch) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	for _, stop := range w.stops {
		stop()
	}
	if w.over != nil {
		close(w.over)
	}
	w.stopper.Wait()
}

// patience is how long processes that outlived the program may take to end.
func (w *watch) patience() time.Duration {
	if w.hard {
		return 0
	}
	return w.attempt.GracePeriod()
}

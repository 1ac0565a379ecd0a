package docker

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

const killSignal = unix.SIGKILL

const (
	// killLook is how often a container that is to be gone is killed again.
	killLook = time.Second
	// stuckTime is how long a killed container may take to end before that is told: its processes hang in the kernel.
	stuckTime = 10 * time.Second
	// firstLook and lastLook bound the pause between readings of what the container uses, which are lost with it. It is a tenth of the
	// time that the container has run, so that no more than that is missed.
	firstLook = 20 * time.Millisecond
	lastLook  = time.Second
)

// stopped is why and how far we stop a container.
type stopped struct {
	class  grid.Class // none while it is not stopped
	reason string
	since  time.Time
	notice unix.Signal   // what the program is still to be told by; 0 once it is told
	grace  time.Duration // from then on
	killed time.Time
}

// follow sees a container that runs to its end and says how it ended. With a cause of ErrLeave, one with a name goes on without us.
func (r *run) follow(ctx context.Context, hard <-chan struct{}) executor.Outcome {
	waiting, done := context.WithCancel(context.Background()) // ends before follow returns
	ended := make(chan ending, 1)
	go func() { ended <- r.await(waiting) }()
	defer done()
	var s stopped
	var limit, grace <-chan time.Time
	saving := false // a cancelled attempt may save its state first
	if r.attempt.Timeout > 0 {
		timer := time.NewTimer(r.attempt.Timeout - time.Since(r.began()))
		defer timer.Stop()
		limit = timer.C
	}
	idle := newIdleWatch(r)
	defer idle.stop()
	look := time.NewTimer(0)
	defer look.Stop()
	cancelled := ctx.Done()
	for {
		stop := func(class grid.Class, reason string, kill bool) {
			if s.class != "" {
				return
			}
			s.class, s.reason, s.since = class, reason, time.Now()
			limit, idle.tick = nil, nil
			if kill {
				r.kill(&s)
				return
			}
			var noticed bool
			s.notice = unix.SIGTERM
			if noticed, s.grace = r.attempt.Noticed(class, saving); noticed {
				s.notice = r.attempt.Notice
			}
			look.Reset(0)
		}
		select {
		case e := <-ended:
			return r.outcome(e, s)
		case <-cancelled:
			cancelled = nil
			cause := context.Cause(ctx)
			class, reason := executor.Verdict(cause)
			saving = errors.Is(cause, executor.ErrCancelledSaving)
			stop(class, reason, errors.Is(cause, executor.ErrKill))
		case <-limit:
			stop(grid.ClassTimeout, executor.TimedOut(r.attempt.Timeout), false)
		case now := <-idle.tick:
			if idle.over(now) {
				stop(grid.ClassIdle, executor.Silent(r.attempt.IdleTimeout), false)
			}
		case <-grace:
			r.kill(&s)
		case <-hardOf(s, hard):
			hard = nil
			r.kill(&s)
		case <-look.C:
			r.look()
			pause := min(max(time.Since(r.began())/10, firstLook), lastLook)
			switch {
			case !s.killed.IsZero():
				r.kill(&s)
			case s.notice != 0 && (r.hears() || time.Since(s.since) > initTime):
				r.signal(s.notice)
				r.signal(unix.SIGCONT) // a stopped program must go on to hear it
				s.notice, grace = 0, time.After(s.grace)
			case s.notice != 0:
				pause = initLook
			}
			look.Reset(pause)
		}
	}
}

// hardOf is what cuts a grace short, once there is one.
func hardOf(s stopped, hard <-chan struct{}) <-chan struct{} {
	if s.class == "" {
		return nil
	}
	return hard
}

func (r *run) began() time.Time { return time.Unix(0, r.order.Began) }

// initTime bounds the wait for the init process to begin, initLook is how often it is looked at meanwhile.
const (
	initTime = 10 * time.Second
	initLook = 5 * time.Millisecond
)

// hears reports whether a signal to the container's init reaches the program. Before the init holds signals back to pass them on, they
// are lost: the first process of a PID namespace gets none that it has not asked for. It does so before it makes its child, and Docker's
// init, tini, passes signals to the group that its child makes first of all.
func (r *run) hears() bool {
	init := r.process()
	if !r.engine.inits() || !init.Alive() {
		return true
	}
	id := strconv.Itoa(init.PID)
	children, err := os.ReadFile("/proc/" + id + "/task/" + id + "/children")
	if err != nil { // a kernel without CONFIG_PROC_CHILDREN
		return true
	}
	return slices.ContainsFunc(strings.Fields(string(children)), func(child string) bool {
		pid, _ := strconv.Atoi(child)
		group, err := unix.Getpgid(pid)
		return err == nil && group == pid || r.engine.podman() != ""
	})
}

// kill ends the container. It is repeated until that is seen.
func (r *run) kill(s *stopped) {
	now := time.Now()
	switch {
	case s.killed.IsZero():
		s.killed = now
	case now.Sub(s.killed) > stuckTime:
		r.log.Error("a container does not end although it is killed; what it holds stays reserved", "since", s.killed)
		s.killed = now
	}
	r.signal(killSignal)
}

// signal reaches the first process of the container: its init, which passes signals on. The kernel is asked first, for the engine may be
// away, and its word for each signal is an event that would look like somebody else's.
func (r *run) signal(s unix.Signal) {
	if r.process().PID > 0 && !errors.Is(r.process().Signal(s), unix.EPERM) {
		return
	}
	go func() { // bounded by callTime; the container is watched meanwhile
		ctx, stop := call(context.Background())
		defer stop()
		if err := r.engine.client.ContainerKill(ctx, r.container, unix.SignalName(s)); err != nil {
			r.log.Debug("the engine did not pass a signal on", "signal", s, "err", err)
		}
	}()
}

// look reads what the container uses.
func (r *run) look() {
	if r.meter != nil {
		r.meter.Look()
	}
}

// idleWatch looks whether a program still prints, eight times in each limit.
type idleWatch struct {
	run   *run
	tick  <-chan time.Time
	timer *time.Ticker
	last  int64
	grown time.Time
}

func newIdleWatch(r *run) *idleWatch {
	w := &idleWatch{run: r, grown: time.Now()}
	if r.attempt.IdleTimeout > 0 {
		w.timer = time.NewTicker(max(r.attempt.IdleTimeout/8, time.Millisecond))
		w.tick = w.timer.C
	}
	return w
}

// over reports whether nothing has been printed for too long.
func (w *idleWatch) over(now time.Time) bool {
	if n := w.run.out.sink.Seen(); n != w.last {
		w.last, w.grown = n, now
	}
	return now.Sub(w.grown) >= w.run.attempt.IdleTimeout
}

func (w *idleWatch) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

package docker

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/processid"
)

const killSignal = unix.SIGKILL

const (
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
	alone  bool          // only the main program is
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
	var cut <-chan struct{} // cuts the grace short
	saving := false         // a cancelled attempt may save its state first
	if r.attempt.Timeout > 0 {
		timer := time.NewTimer(r.attempt.Timeout - time.Since(r.began()))
		defer timer.Stop()
		limit = timer.C
	}
	seen, grown := r.out.sink.Written(), time.Now() // for the idle limit
	look := time.NewTimer(0)
	defer look.Stop()
	cancelled := ctx.Done()
	for {
		stop := func(class grid.Class, reason string, kill bool) {
			if s.class != "" {
				return
			}
			s.class, s.reason, s.since = class, reason, time.Now()
			limit, cut = nil, hard
			if kill {
				r.kill(&s)
				return
			}
			s.notice = unix.SIGTERM
			if s.alone, s.grace = r.attempt.NoticePeriod(class, saving); s.alone {
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
			class, reason := executor.StopVerdict(cause)
			saving = errors.Is(cause, executor.ErrCancelledSaving)
			stop(class, reason, errors.Is(cause, executor.ErrKill))
		case <-limit:
			stop(grid.ClassTimeout, executor.TimedOut(r.attempt.Timeout), false)
		case <-grace:
			r.kill(&s)
		case <-cut:
			cut = nil
			r.kill(&s)
		case <-look.C:
			r.look()
			pause := min(max(time.Since(r.began())/10, firstLook), lastLook)
			if idle := r.attempt.IdleTimeout; idle > 0 {
				pause = min(pause, max(idle/8, time.Millisecond))
				if n := r.out.sink.Written(); n != seen {
					seen, grown = n, time.Now()
				} else if time.Since(grown) >= idle {
					stop(grid.ClassIdle, executor.Silent(idle), false)
				}
			}
			switch {
			case !s.killed.IsZero():
				r.kill(&s)
			case s.notice != 0 && (r.hears() || time.Since(s.since) > initTime):
				r.announce(&s)
				grace = time.After(s.grace)
			case s.notice != 0:
				pause = initLook
			}
			look.Reset(pause)
		}
	}
}

func (r *run) began() time.Time { return time.Unix(0, r.order.Began) }

// initTime bounds the wait for the init process to begin, initLook is how often it is looked at meanwhile.
const (
	initTime = 10 * time.Second
	initLook = 5 * time.Millisecond
)

// hears reports whether a signal to the container's init reaches the program. Before the init holds signals back to pass them on, they
// are lost: the first process of a PID namespace gets none that it has not asked for. It does so before it makes its child, which makes a
// process group for itself first of all.
func (r *run) hears() bool {
	if !r.process().Alive() {
		return true
	}
	main, known := r.main()
	return !known || main.PID > 0
}

// main is the main program, none while it has not begun. known is false where the kernel does not tell (CONFIG_PROC_CHILDREN).
func (r *run) main() (_ processid.ID, known bool) {
	id := strconv.Itoa(r.process().PID)
	children, err := os.ReadFile("/proc/" + id + "/task/" + id + "/children")
	for child := range strings.FieldsSeq(string(children)) {
		pid, _ := strconv.Atoi(child)
		group, err := unix.Getpgid(pid)
		if p, ok := processid.Of(pid); ok && err == nil && group == pid {
			return p, true
		}
	}
	return processid.ID{}, err == nil
}

// announce tells the container that it is to end: all of it, or the main program alone. A stopped program must go on to hear it.
func (r *run) announce(s *stopped) {
	main, _ := r.main()
	if !s.alone || main.Signal(s.notice) != nil {
		r.signalGroup(main, s.notice)
	}
	r.signalGroup(main, unix.SIGCONT)
	s.notice = 0
}

// signalGroup reaches the main program and the children in its group. An init would pass a signal on to the program alone.
func (r *run) signalGroup(main processid.ID, s unix.Signal) {
	if main.PID <= 0 || unix.Kill(-main.PID, s) != nil {
		r.signal(s)
	}
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
	r.x.work.Go(func() { // the container is watched meanwhile
		ctx, stop := call(r.x.ctx)
		defer stop()
		if err := r.engine.client.ContainerKill(ctx, r.container, unix.SignalName(s)); err != nil {
			r.log.Debug("the engine did not pass a signal on", "signal", s, "err", err)
		}
	})
}

// look reads what the container uses.
func (r *run) look() {
	if r.meter != nil {
		r.meter.Look()
	}
}

package docker

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/processid"
)

const (
	// stuckTimeout is how long a killed container may take to end before a log line reports that
	// its processes hang in the kernel.
	stuckTimeout = 10 * time.Second
	// minSampleInterval and maxSampleInterval bound the pause between samples of the container's
	// usage, which is lost with the container. The pause is a tenth of the time for which the
	// container has run, so at most that much goes unmeasured.
	minSampleInterval = 20 * time.Millisecond
	maxSampleInterval = time.Second
)

// initTimeout bounds the wait for the init process to handle signals, which is checked each
// initPollInterval.
const (
	initTimeout      = 10 * time.Second
	initPollInterval = 5 * time.Millisecond
)

// termination is why and how far a container is being stopped.
type termination struct {
	run      *run
	class    grid.Class // "" while it is not being stopped
	reason   string
	since    time.Time
	signal   unix.Signal   // the signal that has yet to be sent to the program; 0 once it is sent
	mainOnly bool          // only the main program gets it
	grace    time.Duration // from the signal to the kill
	killed   time.Time
}

// follow watches a running container until it ends and returns its outcome. It stops the container
// when ctx ends, unless the cause is ErrLeave and the run has a name. kill shortens the grace
// period to nothing.
func (r *run) follow(ctx context.Context, kill <-chan struct{}) executor.Outcome {
	waiting, done := context.WithCancel(context.Background()) // ends before follow returns
	ended := make(chan containerEnd, 1)
	go func() { ended <- r.await(waiting) }()
	defer done()
	t := termination{run: r}
	var limit, grace <-chan time.Time
	var killNow <-chan struct{} // kill, once the container is being stopped
	saving := false             // a cancelled attempt may save its state first
	if r.attempt.Timeout > 0 {
		timer := time.NewTimer(r.attempt.Timeout - time.Since(r.record.began()))
		defer timer.Stop()
		limit = timer.C
	}
	written, writtenAt := r.out.sink.Written(), time.Now() // for the idle limit
	sample := time.NewTimer(0)
	defer sample.Stop()
	cancelled := ctx.Done()
	for {
		stop := func(class grid.Class, reason string, immediately bool) {
			if t.class != "" {
				return
			}
			t.class, t.reason, t.since = class, reason, time.Now()
			limit, killNow = nil, kill
			if immediately {
				t.kill()
				return
			}
			t.signal = unix.SIGTERM
			if t.mainOnly, t.grace = r.attempt.NoticePeriod(class, saving); t.mainOnly {
				t.signal = r.attempt.Notice
			}
			sample.Reset(0)
		}
		select {
		case e := <-ended:
			return r.outcome(e, t)
		case <-cancelled:
			cancelled = nil
			cause := context.Cause(ctx)
			class, reason := executor.StopVerdict(cause)
			saving = errors.Is(cause, executor.ErrCancelledSaving)
			stop(class, reason, errors.Is(cause, executor.ErrKill))
		case <-limit:
			stop(grid.ClassTimeout, executor.TimedOut(r.attempt.Timeout), false)
		case <-grace:
			t.kill()
		case <-killNow:
			killNow = nil
			t.kill()
		case <-sample.C:
			r.sampleUsage()
			pause := min(max(time.Since(r.record.began())/10, minSampleInterval), maxSampleInterval)
			if idle := r.attempt.IdleTimeout; idle > 0 {
				pause = min(pause, max(idle/8, time.Millisecond))
				if n := r.out.sink.Written(); n != written {
					written, writtenAt = n, time.Now()
				} else if time.Since(writtenAt) >= idle {
					stop(grid.ClassIdle, executor.Silent(idle), false)
				}
			}
			switch {
			case !t.killed.IsZero():
				t.kill()
			case t.signal != 0 && (r.processes.receivesSignals() || time.Since(t.since) > initTimeout):
				t.sendSignal()
				grace = time.After(t.grace)
			case t.signal != 0:
				pause = initPollInterval
			}
			sample.Reset(pause)
		}
	}
}

func (r *run) sampleUsage() {
	if r.meter != nil {
		r.meter.Look()
	}
}

// sendSignal sends the signal to the whole container, or to the main program alone. A stopped
// program is continued, or it would not receive it.
func (t *termination) sendSignal() {
	main, _ := t.run.processes.main()
	if !t.mainOnly || main.Signal(t.signal) != nil {
		t.run.signalGroup(main, t.signal)
	}
	t.run.signalGroup(main, unix.SIGCONT)
	t.signal = 0
}

// kill kills the container. It is repeated until the container has ended.
func (t *termination) kill() {
	now := time.Now()
	switch {
	case t.killed.IsZero():
		t.killed = now
	case now.Sub(t.killed) > stuckTimeout:
		t.run.log.Error("a killed container does not end; its resources stay reserved", "since", t.killed)
		t.killed = now
	}
	t.run.signalInit(unix.SIGKILL)
}

// signalGroup signals the main program and the children in its process group. An init would forward
// the signal to the program alone.
func (r *run) signalGroup(main processid.ID, s unix.Signal) {
	if main.PID <= 0 || unix.Kill(-main.PID, s) != nil {
		r.signalInit(s)
	}
}

// signalInit signals the container's init, which forwards signals to the program. It uses the
// kernel where it can: the engine may be unavailable, and reports each signal that it sends by an
// event that looks like a third party's.
func (r *run) signalInit(s unix.Signal) {
	first := r.processes.first()
	if first.PID > 0 && !errors.Is(first.Signal(s), unix.EPERM) {
		return
	}
	r.x.work.Go(func() { // follow continues in the meantime
		ctx, stop := withCallTimeout(r.x.ctx)
		defer stop()
		if err := r.engine.client.ContainerKill(ctx, r.name, unix.SignalName(s)); err != nil {
			r.log.Debug("the engine did not forward a signal", "signal", s, "err", err)
		}
	})
}

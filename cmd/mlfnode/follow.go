package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

// follower shows a sweep until it is at rest. When the node goes away, be it that another terminal ran it, this process takes
// over and goes on where the output stopped.
type follower struct {
	app      *app
	session  *node.Session
	id       grid.SweepID
	quiet    bool // no output of trials
	after    uint64
	seen     api.Seen
	lines    *lines
	progress *progress
	stops    atomic.Int32 // how often the user wanted to stop
}

func (a *app) follower(s *node.Session, id grid.SweepID, quiet bool, after uint64) *follower {
	f := &follower{app: a, session: s, id: id, quiet: quiet, after: after}
	f.progress = &progress{w: a.stderr, terminal: isTerminal(a.stderr), quiet: quiet}
	f.lines = newLines(id, a.colours(a.stdout), func(line string) { f.progress.print(a.stdout, line) })
	return f
}

// run follows to the end and gives the sweep at rest. The user's signals pause and then kill it, also one that came before.
func (f *follower) run(ctx context.Context) (*api.Sweep, error) {
	signals, release := f.app.interrupts.take()
	defer release()
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go f.obey(ctx, signals)
	for {
		last, err := f.watch(ctx)
		f.lines.end()
		f.progress.clear()
		if !errors.Is(err, api.ErrLost) || f.stops.Load() > 0 {
			return last, err
		}
		if err := f.again(ctx); err != nil {
			return last, err
		}
	}
}

// again finds the node that took over, or becomes it.
func (f *follower) again(ctx context.Context) error {
	select {
	case err := <-f.session.Failed():
		return err
	default:
	}
	if f.session.Remote() {
		return f.session.Await(ctx, func() { f.progress.print(f.app.stderr, "the master does not answer; waiting for it (trials go on)") })
	}
	f.session.Close()
	s, err := f.app.attach(ctx, true)
	if err != nil {
		return err
	}
	f.session = s
	return nil
}

func (f *follower) watch(ctx context.Context) (*api.Sweep, error) {
	var last *api.Sweep
	for u, err := range f.session.Client().Watch(ctx, f.id, f.after) {
		if err != nil {
			return last, err
		}
		now := time.Now()
		switch {
		case u.Output != nil:
			f.output(u.Output, now)
		case u.Sweep != nil:
			last = u.Sweep
			f.lines.linger(now)
			f.progress.update(last, now)
		}
	}
	return last, nil
}

func (f *follower) output(o *api.Output, now time.Time) {
	f.after = o.Seq
	if f.seen.Fresh(o) && !f.quiet {
		f.lines.add(o, now)
	}
}

// obey pauses at the first signal and kills at the second. A terminal that goes away, or a machine that goes down, does not
// wait.
func (f *follower) obey(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			n := f.stops.Add(1)
			client := f.session.Client()
			if n > 1 || sig != os.Interrupt {
				_, _ = client.Kill(ctx, f.id) // it may have ended in between
				continue
			}
			if _, err := client.Pause(ctx, f.id); err == nil {
				f.progress.print(f.app.stderr, fmt.Sprintf("%s is paused; running trials go on to their end, Ctrl-C again kills them", f.id))
			}
		}
	}
}

// interrupted reports whether the user stopped the sweep.
func (f *follower) interrupted() bool { return f.stops.Load() > 0 }

// hosting keeps this process up while it hosts sweeps of other terminals. A signal leaves at once: their terminals take over.
func (f *follower) hosting(ctx context.Context) error {
	if !f.session.Hosting() || f.interrupted() {
		return nil
	}
	notice := time.AfterFunc(time.Second, func() {
		f.app.say("%s has ended; this terminal stays while sweeps of other terminals run (Ctrl-C leaves)", f.id)
	})
	defer notice.Stop()
	if err := f.session.Idle(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

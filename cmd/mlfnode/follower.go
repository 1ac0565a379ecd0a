package main

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

// follower shows a sweep until it stops running. What a signal does depends on where the trials
// run: a sweep of the node in this process is paused, then killed; a sweep in a cluster, or of a
// node in another process, continues.
//
// If the node goes away, a follower in a cluster waits for it. Outside a cluster the node belonged
// to another terminal: this process takes over and continues where the output stopped.
type follower struct {
	app           *app
	id            grid.SweepID
	noOutput      bool // of trials
	after         uint64
	seen          api.SeenOutput
	lines         *lineWriter
	progress      *progress
	interruptions atomic.Int32 // how often the user has asked to stop
	release       func()       // gives the signals back

	mu      sync.Mutex
	session *node.Session
}

func newFollower(a *app, s *node.Session, id grid.SweepID, flags *followFlags, after uint64) *follower {
	f := &follower{app: a, session: s, id: id, noOutput: flags.quiet || flags.noOutput, after: after,
		release: func() {}}
	f.progress = &progress{w: a.stderr, terminal: isTerminal(a.stderr), quiet: flags.quiet}
	f.lines = newLineWriter(id, a.colours(a.stdout), func(line string) { f.progress.print(a.stdout, line) })
	return f
}

// currentSession returns the session with the node that has the sweep now.
func (f *follower) currentSession() *node.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.session
}

// close closes the session and releases the signals.
func (f *follower) close() {
	f.currentSession().Close()
	f.release()
}

// run follows the sweep until it stops running and returns it. It handles signals, including one
// that came before; after a signal it keeps them until close.
func (f *follower) run(ctx context.Context) (*api.Sweep, error) {
	signals, release := f.app.interrupts.capture(syscall.SIGPIPE)
	ctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	over := make(chan struct{})
	f.release = sync.OnceFunc(func() {
		close(over)
		release()
	})
	go f.handleSignals(ctx, stop, signals, over)
	defer func() {
		stop(nil)
		if !f.interrupted() {
			f.release()
		}
	}()
	for {
		last, err := f.watch(ctx)
		f.lines.flush()
		f.progress.clear()
		if errors.Is(err, api.ErrLost) && !f.interrupted() {
			err = f.reconnect(ctx)
			if err == nil {
				continue
			}
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return last, err
	}
}

// reconnect opens a session with the node that took over, or with one in this process; in a cluster
// it waits for the master.
func (f *follower) reconnect(ctx context.Context) error {
	s := f.currentSession()
	select {
	case err := <-s.Failed():
		return err
	default:
	}
	if s.InCluster() {
		return s.Await(ctx, func() { f.progress.print(f.app.stderr, awaitingMaster) })
	}
	s.Close()
	next, err := f.app.attach(ctx, true)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.session = next
	return nil
}

func (f *follower) watch(ctx context.Context) (*api.Sweep, error) {
	var last *api.Sweep
	for u, err := range f.currentSession().Client().Sweeps().Watch(ctx, f.id, f.after) {
		if err != nil {
			return last, err
		}
		now := time.Now()
		switch {
		case u.Output != nil:
			f.showOutput(u.Output, now)
		case u.Sweep != nil:
			last = u.Sweep
			f.lines.flushStale(now)
			f.progress.update(last, now)
		}
	}
	return last, nil
}

func (f *follower) showOutput(o *api.Output, now time.Time) {
	f.after = o.Seq
	if !f.seen.Fresh(o) {
		return
	}
	if o.Stream == "setup" {
		f.progress.showSetup(o.Data, now)
	}
	if !f.noOutput {
		f.lines.write(o, now)
	}
}

// interrupted reports whether the user has stopped the sweep.
func (f *follower) interrupted() bool { return f.interruptions.Load() > 0 }

// waitWhileHosting keeps this process running while it hosts sweeps of other terminals. A signal
// ends it immediately: another terminal takes over.
func (f *follower) waitWhileHosting(ctx context.Context) error {
	if !f.currentSession().Hosting() || f.interrupted() {
		return nil
	}
	notice := time.AfterFunc(time.Second, func() {
		f.app.say("%s has ended; this terminal stays open while it runs sweeps of other terminals (Ctrl-C leaves)",
			f.id)
	})
	defer notice.Stop()
	if err := f.currentSession().Idle(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// buffered calls fn with a console that prints only once fn has succeeded, so that fn can be called
// again if the node goes away meanwhile.
func (f *follower) buffered(ctx context.Context, fn func(*console) error) error {
	var out, complaints bytes.Buffer
	err := retryWhileLost(func() error {
		out.Reset()
		complaints.Reset()
		buffered := *f.app.console
		buffered.stdout, buffered.stderr = &screen{w: &out}, &complaints
		err := fn(&buffered)
		if errors.Is(err, api.ErrLost) {
			if e := f.reconnect(ctx); e != nil {
				return e
			}
		}
		return err
	}, func(error) bool { return true })
	if err != nil {
		return err
	}
	if _, err := out.WriteTo(f.app.stdout); err != nil {
		return err
	}
	_, err = complaints.WriteTo(f.app.stderr)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/api"
)

const (
	// requestTimeout bounds the wait for the node's answer to a pause or a kill.
	requestTimeout = 5 * time.Second
	// killTimeout is how long a sweep may take to stop after a kill. Then the node ends, which
	// stops its trials too and gives them the same time.
	killTimeout = 10 * time.Second
)

var (
	// errDetached stops watching a sweep that continues.
	errDetached = errors.New("the sweep continues without this command")
	// errUnrecorded stops watching a sweep whose end can't be recorded.
	errUnrecorded = errors.New("the sweep could not be stopped cleanly")
)

// handleSignals does what signals ask for until over is closed; stop ends the watching. With the
// node in this process, Ctrl-C pauses the sweep and the second one kills it; a closed terminal, a
// shutdown of the machine and output that nobody reads kill it immediately. A further signal ends
// the process.
func (f *follower) handleSignals(ctx context.Context, stop context.CancelCauseFunc, signals <-chan os.Signal,
	over <-chan struct{}) {
	answers := make(chan error, 4)
	killing := false
	var rest <-chan time.Time
	for {
		select {
		case <-over:
			return
		case sig := <-signals:
			if sig == syscall.SIGPIPE && !outputClosed() {
				continue // a connection was closed
			}
			n := f.interruptions.Add(1)
			insists := sig == os.Interrupt || sig == syscall.SIGTERM // the system may repeat other signals
			switch {
			case !f.currentSession().Hosting() && n == 1:
				go func() {
					f.printContinues()
					stop(errDetached)
				}()
			case !f.currentSession().Hosting() && insists:
				f.app.interrupts.raise(sig)
			case !f.currentSession().Hosting():
			case killing && insists:
				f.warnUnrecorded()
				f.app.interrupts.raise(sig)
			case killing:
			case n == 1 && sig == os.Interrupt:
				go f.pauseSweep(ctx)
			default:
				killing, rest = true, time.After(killTimeout)
				go func() { answers <- f.request(ctx, f.currentSession().Client().Sweeps().Kill) }()
			}
		case err := <-answers:
			if err == nil {
				continue
			}
			f.progress.print(f.app.stderr, fmt.Sprintf("%s can't be stopped cleanly: %v", f.id, err))
			stop(errUnrecorded)
		case <-rest:
			rest = nil
			stop(errUnrecorded)
		}
	}
}

// request asks the node to act on the sweep. It is not an error if the sweep has ended meanwhile.
func (f *follower) request(ctx context.Context, act func(context.Context, grid.SweepID) (api.Done, error)) error {
	ctx, stop := context.WithTimeoutCause(ctx, requestTimeout, errors.New("the node does not answer"))
	defer stop()
	_, err := act(ctx, f.id)
	var refusal *api.Error
	if errors.As(err, &refusal) && refusal.Status < http.StatusInternalServerError || errors.Is(err, api.ErrLost) {
		return nil
	}
	return err
}

// uninterrupted makes a request that starts trials. A signal that comes meanwhile is left to the
// follower, after the node has answered: it pauses the sweep, whereas a node stopped halfway would
// kill the first trials. After a signal, the node has requestTimeout to answer.
func uninterrupted[T any](ctx context.Context, request func(context.Context) (T, error)) (T, error) {
	if ctx.Err() != nil {
		return request(ctx)
	}
	whole, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(requestTimeout, stop) })()
	return request(whole)
}

// pauseSweep stops new trials from starting.
func (f *follower) pauseSweep(ctx context.Context) {
	text := "%s is paused; running trials finish or save their state; press Ctrl-C again to kill them"
	if err := f.request(ctx, f.currentSession().Client().Sweeps().Pause); err != nil {
		text = "%s can't be paused: " + oneLine(err.Error()) + "; press Ctrl-C again to stop it"
	}
	f.progress.print(f.app.stderr, fmt.Sprintf(text, f.id))
}

// printContinues says how to watch, pause or end a sweep that this process no longer watches.
func (f *follower) printContinues() {
	where := "in the cluster"
	if !f.currentSession().InCluster() {
		where = "in another terminal"
	}
	f.progress.print(f.app.stderr,
		fmt.Sprintf("%s continues %s; watch it again with: mlfnode resume %[1]s, "+
			"or follow its output with: mlfnode logs -f %[1]s", f.id, where))
	f.progress.print(f.app.stderr, fmt.Sprintf("pause it with: mlfnode pause %s, end it with: mlfnode cancel %[1]s",
		f.id))
}

// warnUnrecorded says what a stop in bad order leaves behind.
func (f *follower) warnUnrecorded() {
	f.app.say("the end of the last trials of %s was not recorded; continue with: mlfnode resume %s", f.id, f.id)
}

// outputClosed reports whether nobody reads standard output or standard error any more.
func outputClosed() bool {
	fds := []unix.PollFd{{Fd: 1}, {Fd: 2}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && (fds[0].Revents|fds[1].Revents)&(unix.POLLERR|unix.POLLHUP) != 0
}

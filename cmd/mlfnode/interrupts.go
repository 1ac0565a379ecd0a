package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interrupts delivers signals to whoever has captured them. The first signal that nobody captures
// cancels the command's context, so that the command cleans up; the second ends the process
// immediately. The zero value delivers nothing.
type interrupts struct {
	mu       sync.Mutex
	signals  chan os.Signal // from the system; nil in the zero value
	captured chan os.Signal
	first    os.Signal // that nobody has captured
}

// listen returns the command's context. It listens as long as the process lives, so that no signal
// kills the process while it shuts down in good order. Signals that this process was started to
// ignore (nohup, a shell's &) stay ignored.
func (i *interrupts) listen(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 4)
	i.signals = signals
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		for s := range signals {
			i.deliver(s, cancel)
		}
	}()
	return ctx
}

// deliver sends a signal to whoever has captured them. If nobody has, it calls cancel the first
// time and raises the signal the next time.
func (i *interrupts) deliver(s os.Signal, cancel func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.captured != nil:
		select {
		case i.captured <- s:
		default: // it is busy enough already
		}
	case s == syscall.SIGPIPE: // meant for somebody who has released the signals
	case i.first == nil:
		i.first = s
		cancel()
	default:
		i.raise(s)
	}
}

// raise gives a signal its default effect, which ends this process.
func (*interrupts) raise(s os.Signal) {
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s.(syscall.Signal)) // every os.Signal of this system is one
}

// capture returns a channel that receives the signals until release is called, including a first
// one that came too early. The extra signals are received as well; for everybody else they keep
// their default effect.
func (i *interrupts) capture(extra ...os.Signal) (signals <-chan os.Signal, release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.captured = make(chan os.Signal, 4)
	if i.first != nil {
		i.captured <- i.first
	}
	if i.signals != nil && len(extra) > 0 {
		signal.Notify(i.signals, extra...)
	}
	return i.captured, func() {
		if len(extra) > 0 {
			signal.Reset(extra...)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.captured = nil
	}
}

// interruptible is a writer that fails once ctx is canceled.
type interruptible struct {
	ctx context.Context
	w   io.Writer
}

// Write implements io.Writer.
func (i interruptible) Write(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.w.Write(p)
}

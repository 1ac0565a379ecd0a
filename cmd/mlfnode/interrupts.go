package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interrupts brings signals to whoever takes them. The first that nobody takes ends the command's context, so that what is half
// done is cleaned up; the second ends the process at once. The zero value brings none.
type interrupts struct {
	mu       sync.Mutex
	signals  chan os.Signal // from the system; nil in the zero value
	captured chan os.Signal
	first    os.Signal // that nobody took
}

// listen gives the command's context. It listens as long as the process lives, so that none dies of a signal while it ends in
// good order. Signals that this process was started to ignore (nohup, a shell's &) stay ignored.
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

// deliver hands a signal to the taker. Without one it calls cancel, and the next time it lets the signal have its way.
func (i *interrupts) deliver(s os.Signal, cancel func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.captured != nil:
		select {
		case i.captured <- s:
		default: // it has more than it can do already
		}
	case s == syscall.SIGPIPE: // it was for a taker that has gone
	case i.first == nil:
		i.first = s
		cancel()
	default:
		i.raise(s)
	}
}

// raise lets a signal have its usual effect, which is the end of this process.
func (*interrupts) raise(s os.Signal) {
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s.(syscall.Signal)) // there are no others on this system
}

// capture gives a channel that gets the signals until release is called, with the first if it came too early. Extra ones are
// signals that this taker wants, too; they keep their usual effect for everybody else.
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

// interruptible is a writer that fails once ctx has ended.
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

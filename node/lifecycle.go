package node

import (
	"context"
	"fmt"
	"net"
	"sync"

	"mlfnode/node/monitor"
)

// lifecycle is the parts of a node that run, and how they end: in the reverse of the order in which
// they were started.
type lifecycle struct {
	closers []func()
	failed  chan error // the parts that ended by themselves
	broken  *latch     // set when a part has ended by itself
}

// onClose registers fn, which Close calls before what was registered earlier.
func (l *lifecycle) onClose(fn func()) { l.closers = append(l.closers, fn) }

// start runs a part until Close.
func (l *lifecycle) start(name string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background()) // ends in Close, in its order
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil {
			l.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	l.onClose(func() {
		stop()
		<-ended
	})
}

// fail records that a part ended by itself. It closes the connections of clients, so that none
// waits for a node that does nothing.
func (l *lifecycle) fail(err error) {
	l.failed <- err
	l.broken.set()
}

// serve answers requests on a listener. The returned func stops that and waits for the requests in
// progress.
func (l *lifecycle) serve(m *monitor.Monitor, on net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background()) // ends with the returned func
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := m.Serve(ctx, on); err != nil {
			l.fail(fmt.Errorf("monitor: %w", err))
		}
	})
	serving.Go(func() {
		select {
		case <-l.broken.done():
			cancel()
		case <-ctx.Done():
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}
}

// Failed returns a channel with the error of a part that ended by itself.
func (l *lifecycle) Failed() <-chan error { return l.failed }

// Close stores reports and closes files. It stops the running attempts of a node that stands alone;
// they run again later. Those of a node in a cluster continue and wait for its next agent, whatever
// ended this one: an error at the start, a part that failed, a restart. Only after Stop does Close
// stop them, too.
func (l *lifecycle) Close() {
	for i := len(l.closers) - 1; i >= 0; i-- {
		l.closers[i]()
	}
	l.closers = nil
}

// latch is an event that happens at most once.
type latch struct {
	once     sync.Once
	happened chan struct{}
}

func newLatch() *latch { return &latch{happened: make(chan struct{})} }

// set records that the event has happened.
func (l *latch) set() { l.once.Do(func() { close(l.happened) }) }

// done returns a channel that is closed once the event has happened.
func (l *latch) done() <-chan struct{} { return l.happened }

package inventory

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// refresh is the interval at which a Watcher reads: the use of GPUs is shown to people, and reading
// it costs the driver milliseconds.
const refresh = 10 * time.Second

const (
	// hangs is how long a reading may take before the driver is considered silent. Without
	// persistence mode it takes seconds.
	hangs = 20 * time.Second
	// endLimit is how long the end of a Watcher waits for a reading that is in progress.
	endLimit = 2 * time.Second
)

// ErrSilent is returned by Sample if the driver does not answer in time, or if no Watcher is
// running.
var ErrSilent = errors.New(silence)

// Watcher keeps a current Machine, so that nobody waits for a slow driver. One goroutine calls the
// driver, and no other is started while it hangs.
type Watcher struct {
	every   time.Duration
	source  Source
	read    func(context.Context, Source) (Machine, error)
	changed func(Machine)
	asked   chan chan answer // requests for samples
	latest  atomic.Pointer[Machine]
}

// answer is a sample or an error.
type answer struct {
	sample Sample
	err    error
}

// NewWatcher returns a Watcher that starts with the given Machine. A nil source means this
// machine's driver. changed, which may be nil, is called after each reading, and when one takes so
// long that the driver is considered silent; it must not block.
func NewWatcher(first Machine, source Source, changed func(Machine)) *Watcher {
	if source == nil {
		source = newDevices()
	}
	w := &Watcher{every: refresh, source: source, read: read, changed: changed, asked: make(chan chan answer)}
	w.latest.Store(&first)
	return w
}

// Latest returns the newest Machine. It never blocks. The contents of its slices are never
// modified.
func (w *Watcher) Latest() Machine { return *w.latest.Load() }

// Sample returns the current use of all devices. Faults are reported to only one caller, the next
// one. Sample returns ErrSilent if ctx ends before the driver has answered: the goroutine that
// calls the driver may be blocked.
func (w *Watcher) Sample(ctx context.Context) (Sample, error) {
	a := make(chan answer, 1)
	select {
	case w.asked <- a:
	case <-ctx.Done():
		return Sample{}, ErrSilent
	}
	select {
	case got := <-a:
		return got.sample, got.err
	case <-ctx.Done():
		return Sample{}, ErrSilent
	}
}

// Run reads the machine immediately and then about every ten seconds until ctx ends, and then
// returns nil. A reading that fails keeps the previous Machine; one that hangs in the driver delays
// neither the end of Run nor Latest, and continues in the background.
func (w *Watcher) Run(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.watch(ctx)
	}()
	<-ctx.Done()
	select {
	case <-ended:
	case <-time.After(endLimit):
	}
	return nil
}

func (w *Watcher) watch(ctx context.Context) {
	defer w.source.Close()
	ticks := time.NewTicker(w.every)
	defer ticks.Stop()
	for w.look(ctx); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			w.look(ctx)
		case a := <-w.asked:
			s, err := w.source.Sample(ctx)
			a <- answer{s, err}
		}
	}
}

func (w *Watcher) look(ctx context.Context) {
	late := time.AfterFunc(hangs, func() {
		m := w.Latest()
		m.GPUProblem = silence
		w.publish(ctx, m)
	})
	m, err := w.read(ctx, w.source)
	late.Stop()
	if err == nil {
		w.publish(ctx, m)
	}
}

// publish makes m the latest Machine, unless ctx has ended.
func (w *Watcher) publish(ctx context.Context, m Machine) {
	if ctx.Err() != nil {
		return
	}
	w.latest.Store(&m)
	if w.changed != nil {
		w.changed(m)
	}
}

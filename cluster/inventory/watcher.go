package inventory

import (
	"context"
	"errors"
	"sync"
	"time"
)

// refresh is how often a Watcher looks: the use of a GPU is shown to people, and reading it costs
// the driver milliseconds.
const refresh = 10 * time.Second

const (
	// hangs is how long a look may take before the driver is said not to answer. Without
	// persistence mode it takes seconds.
	hangs = 20 * time.Second
	// endLimit is how long the end of a Watcher waits for a look that is under way.
	endLimit = 2 * time.Second
)

// ErrSilent is returned by Sample when the driver does not answer in time, or nobody watches it.
var ErrSilent = errors.New(silence)

// Watcher keeps a fresh picture of the machine, so that nobody waits for a slow driver. One
// goroutine asks the driver, and no other is started while that one hangs.
type Watcher struct {
	every   time.Duration
	source  Source
	read    func(context.Context, Source) (Machine, error)
	changed func(Machine)
	asked   chan chan answer // samples that are wanted

	mu     sync.Mutex
	latest Machine
}

// answer is a sample, or why there is none.
type answer struct {
	sample Sample
	err    error
}

// NewWatcher begins with what is known of the machine already. A nil source is this machine's
// driver. The func, which may be nil, is called after each look, and when one takes so long that
// the driver hangs; it must not block.
func NewWatcher(first Machine, source Source, changed func(Machine)) *Watcher {
	if source == nil {
		source = newDevices()
	}
	return &Watcher{every: refresh, source: source, read: read, changed: changed, asked: make(chan chan answer), latest: first}
}

// Latest is the newest picture. It never blocks. What its slices hold is never changed any more.
func (w *Watcher) Latest() Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// Sample looks at the use of all devices now. Faults are reported to one caller alone, the next to
// ask. It returns ErrSilent when ctx ends before the driver has answered: the goroutine that asks
// the driver may be stuck in it.
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

// Run looks at once and then about every ten seconds until the context ends, and returns nil then.
// A look that fails leaves the picture as it is; one that hangs in the driver delays neither Run's
// end nor Latest, and goes on alone.
func (w *Watcher) Run(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.watch(ctx)
	}()
	<-ctx.Done()
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
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

// publish makes a picture the latest one. After the end of ctx nothing is published any more.
func (w *Watcher) publish(ctx context.Context, m Machine) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.latest = m
	w.mu.Unlock()
	if w.changed != nil {
		w.changed(m)
	}
}

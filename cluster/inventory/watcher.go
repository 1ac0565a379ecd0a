package inventory

import (
	"context"
	"sync"
	"time"
)

// refresh is how often a Watcher looks: the use of a GPU is shown to people, and reading it costs the driver milliseconds.
const refresh = 10 * time.Second

const (
	// hangs is how long a look may take before the driver is said not to answer. Without persistence mode it takes seconds.
	hangs = 20 * time.Second
	// endLimit is how long the end of a Watcher waits for a look that is under way.
	endLimit = 2 * time.Second
)

// Watcher keeps a fresh picture of the machine, so that nobody waits for a slow driver. One goroutine asks the driver, and no other
// is started while that one hangs.
type Watcher struct {
	every   time.Duration
	read    func(context.Context, *devices) (Machine, error)
	changed func(Machine)

	mu     sync.Mutex
	latest Machine
}

// NewWatcher begins with what is known of the machine already. The func, which may be nil, is called after each look, and when one
// takes so long that the driver hangs; it must not block.
func NewWatcher(first Machine, changed func(Machine)) *Watcher {
	return &Watcher{every: refresh, read: read, changed: changed, latest: first}
}

// Latest is the newest picture. It never blocks. What its slices hold is never changed any more.
func (w *Watcher) Latest() Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// Run looks at once and then about every ten seconds until the context ends, and returns nil then. A look that fails leaves the
// picture as it is; one that hangs in the driver delays neither Run's end nor Latest, and goes on alone.
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
	g := newDevices()
	defer g.close()
	ticks := time.NewTicker(w.every)
	defer ticks.Stop()
	for {
		w.look(ctx, g)
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

func (w *Watcher) look(ctx context.Context, g *devices) {
	late := time.AfterFunc(hangs, func() {
		m := w.Latest()
		m.GPUs, m.GPUProblem = nil, silence
		w.publish(ctx, m)
	})
	m, err := w.read(ctx, g)
	late.Stop()
	if err == nil {
		w.publish(ctx, m)
	}
}

// publish takes a picture over. After the end of ctx nobody is to be told any more.
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

package inventory

import (
	"context"
	"sync"
	"time"
)

// refresh is how often a Watcher looks: the use of a GPU is shown to people, and reading it costs the driver milliseconds.
const refresh = 10 * time.Second

// Watcher keeps a fresh picture of the machine, so that nobody waits for a slow driver.
type Watcher struct {
	every   time.Duration
	read    func(*devices) (Machine, error)
	changed func(Machine)

	mu     sync.Mutex
	latest Machine
}

// NewWatcher begins with a machine that was read already. The func, which may be nil, is called by Run after each look; it must
// not block.
func NewWatcher(first Machine, changed func(Machine)) *Watcher {
	return &Watcher{every: refresh, read: read, changed: changed, latest: first}
}

// Latest is the newest picture. It never blocks. What its slices hold is never changed any more.
func (w *Watcher) Latest() Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// Run looks about every ten seconds until the context ends, and returns nil then. A look that fails leaves the picture as it is;
// one that hangs in the driver delays Run's end, but not Latest.
func (w *Watcher) Run(ctx context.Context) error {
	g := newDevices()
	defer g.close()
	for ticks := time.NewTicker(w.every); ; {
		select {
		case <-ctx.Done():
			ticks.Stop()
			return nil
		case <-ticks.C:
			w.look(g)
		}
	}
}

func (w *Watcher) look(g *devices) {
	m, err := w.read(g)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.latest = m
	w.mu.Unlock()
	if w.changed != nil {
		w.changed(m)
	}
}

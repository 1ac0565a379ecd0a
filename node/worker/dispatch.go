package worker

import (
	"context"
	"sync"
	"time"

	"mlfnode/jetstream"
)

// dispatchInterval is how often the queue is looked at without being told, for leases that came back from a dead node.
const dispatchInterval = time.Second

// dispatch fills free capacity with leases until ctx ends.
func (w *Worker) dispatch(ctx context.Context) {
	tick := time.NewTicker(dispatchInterval)
	defer tick.Stop()
	for {
		lanes := w.sweeps.lanes()
		for _, l := range lanes {
			w.fill(ctx, l)
		}
		again := tick.C
		if len(lanes) == 0 {
			again = nil // nothing to look for
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-again:
		}
	}
}

// fill hands leases of one lane to runners while resources and work last.
func (w *Worker) fill(ctx context.Context, l lane) {
	for ctx.Err() == nil && w.capacity.reserve(l.resources) {
		h := w.acquire(ctx, l)
		if h == nil {
			w.capacity.release(l.resources)
			return
		}
		w.running.Add(1)
		w.runner().turns <- turn{h, l}
	}
}

// acquire pulls a lease, or joins one of this worker that has trials to spare.
func (w *Worker) acquire(ctx context.Context, l lane) *holding {
	held, err := w.cfg.Store.Queue.Pull(ctx, string(l.name), 1)
	if err != nil && ctx.Err() == nil {
		w.log.Debug("queue could not be asked", "lane", l.name, "err", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(held) > 0 {
		h := &holding{held: held[0], next: held[0].Lo, runners: 1}
		w.holdings[h] = struct{}{}
		return h
	}
	for h := range w.holdings {
		if h.held.Shape == string(l.name) && h.join(w.sweeps) {
			return h
		}
	}
	return nil
}

// leave takes a runner off the holding; the last one gives the lease back.
func (w *Worker) leave(h *holding) {
	if !h.leave() {
		return
	}
	w.outbox.release(h.held, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.holdings, h)
	})
}

// renew keeps the leases of this worker while it works on them.
func (w *Worker) renew(ctx context.Context) {
	tick := time.NewTicker(jetstream.AckWait / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, h := range w.held() {
			if err := h.held.Renew(); err != nil {
				w.log.Debug("lease could not be renewed", "sweep", h.held.Sweep, "err", err)
			}
		}
	}
}

func (w *Worker) held() []*holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*holding, 0, len(w.holdings))
	for h := range w.holdings {
		all = append(all, h)
	}
	return all
}

// holding is a lease in this worker's hands and the runners that work on it.
type holding struct {
	held *jetstream.Held

	mu      sync.Mutex
	next    int64
	runners int
}

// take gives the next trial.
func (h *holding) take() (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next >= h.held.Hi {
		return 0, false
	}
	h.next++
	return h.next - 1, true
}

// join adds a runner if there are trials that nobody has begun. A sweep with a limit on parallel trials has one runner for
// each lease, since the limit counts leases.
func (h *holding) join(s *sweeps) bool {
	w, ok := s.active(h.held.Sweep)
	if !ok || w.record.MaxParallel > 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runners == 0 || h.held.Hi-h.next < 1 {
		return false
	}
	h.runners++
	return true
}

// leave removes a runner and reports whether it was the last.
func (h *holding) leave() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runners--
	return h.runners == 0
}

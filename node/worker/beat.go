package worker

import (
	"context"
	"slices"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

const (
	// beatPause is the shortest time between two beats: leases that come in short succession are told together. The master's pace
	// can make it longer.
	beatPause = 20 * time.Millisecond
	// beatPatience is how long the answer to a beat is waited for.
	beatPatience = time.Second
	// lastBeats bounds the farewell of a node that leaves.
	lastBeats = 500 * time.Millisecond
)

// beat tells the master what this worker holds, and obeys, until ctx ends. It says farewell then.
func (w *Worker) beat(ctx context.Context) {
	tick := time.NewTicker(jetstream.HeartbeatInterval)
	defer tick.Stop()
	var told *jetstream.Sample // the newest that has arrived
	for {
		told = w.report(ctx, told)
		pause := time.NewTimer(max(beatPause, w.outbox.pace()))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		select {
		case <-ctx.Done():
			w.farewell()
			return
		case <-tick.C:
		case <-w.beatNow:
		}
	}
}

// report sends one beat, with what the machine is doing unless that was told before. It gives what has been told now.
func (w *Worker) report(ctx context.Context, told *jetstream.Sample) *jetstream.Sample {
	ctx, stop := context.WithTimeout(ctx, beatPatience)
	defer stop()
	b, now := w.state(), told
	if w.cfg.Sample != nil {
		if now = w.cfg.Sample(); now != told {
			b.Sample = now
		}
	}
	orders, err := w.cfg.Master.SendHeartbeat(ctx, b)
	if err != nil {
		if ctx.Err() == nil {
			w.log.Debug("master does not answer", "err", err)
		}
		return told
	}
	w.obey(&orders)
	return now
}

// farewell tells the master that this agent ends.
func (w *Worker) farewell() {
	ctx, stop := context.WithTimeout(context.Background(), lastBeats) // the worker's own context has ended
	defer stop()
	b := w.state()
	b.Restarting = w.handover.Load()
	b.Leaving = !b.Restarting
	if _, err := w.cfg.Master.SendHeartbeat(ctx, b); err != nil {
		w.log.Debug("master was not told that this node leaves", "err", err)
	}
}

// state is what a beat says.
func (w *Worker) state() jetstream.Heartbeat {
	b := jetstream.Heartbeat{Start: w.runs.prefix, Running: w.Running(), Draining: w.draining.Load(), Outlive: w.cfg.Outlive, Mark: w.mark.Load(),
		Refusals: w.fairness.waiting(jetstream.MaxRefusals)}
	if w.cfg.Keys != nil {
		b.Keys = w.cfg.Keys()
	}
	for _, h := range w.held() {
		if l := h.held; !h.gone() {
			b.Leases = append(b.Leases, jetstream.HeldLease{
				Seq: l.Seq, Deliveries: l.Deliveries, ID: l.ID, Sweep: l.Sweep, Attempts: h.running(), Hi: h.kept(),
			})
		}
	}
	return b
}

// Running says how many attempts run now.
func (w *Worker) Running() int {
	w.tailMu.Lock()
	defer w.tailMu.Unlock()
	return len(w.tailing)
}

// obey follows the master's orders.
func (w *Worker) obey(o *jetstream.Directives) {
	for _, h := range w.held() {
		if slices.Contains(o.Stop, h.held.ID) && h.lose() {
			w.log.Warn("lease is lost; what runs under it is stopped", "sweep", h.held.Sweep, "lease", h.held.ID)
		}
		if slices.Contains(o.Finish, h.held.ID) {
			h.beginNone()
		}
	}
	if old := w.without.Swap(&o.Without); old != nil && len(*old) != len(o.Without) {
		w.log.Info("some trials are withheld from this node", "without", o.Without)
		w.nudge()
	}
	w.outbox.setPace(o.Pace)
	w.curves.Store(int64(o.Curves))
	if w.mark.Swap(o.Mark) != o.Mark {
		w.tellSoon() // the master waits for what is so now
	}
	was := w.draining.Swap(o.Drain)
	if o.Drain {
		w.moveOn()
	}
	if was && !o.Drain && w.gpus != nil {
		w.gpus.Clear()
	}
	if was != o.Drain {
		w.log.Info("drain", "on", o.Drain, "reason", o.Reason)
		w.nudge()
		w.tellSoon() // somebody waits for it
	}
	if w.cfg.Orders != nil {
		w.cfg.Orders(o)
	}
}

// moveOn stops, on a node that is drained, the attempts that can go on elsewhere from what they save.
func (w *Worker) moveOn() {
	for _, h := range w.held() {
		if w.sweeps.canSave(h.held.Sweep) {
			h.halt(errDrained)
		}
	}
}

// halt stops what runs under the holding, to go on later.
func (h *holding) halt(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.halted = cause
	if h.cancel != nil {
		h.cancel(cause)
	}
}

// tellSoon has the next beat go out soon: it says something that the master does not know.
func (w *Worker) tellSoon() {
	select {
	case w.beatNow <- struct{}{}:
	default:
	}
}

// lose stops what runs under the holding. It is not reported or given back: it belongs to somebody else. It reports whether
// anything runs: a lease that this worker has brought to an end is not held by it any more as soon as the master knows.
func (h *holding) lose() (runs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	if h.cancel != nil {
		h.cancel(executor.ErrLost)
	}
	return h.runners > 0
}

// gone reports whether the lease is lost.
func (h *holding) gone() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}

// under gives the sweep as the trials of this holding see it: they stop when the lease is lost, too. It reports false when that
// is so already.
func (h *holding) under(s *sweep) (*sweep, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parent != s {
		own := *s
		own.ctx, h.cancel = context.WithCancelCause(s.ctx)
		h.parent, h.own = s, &own
	}
	if h.lost {
		h.cancel(executor.ErrLost)
	} else if h.halted != nil {
		h.cancel(h.halted)
	}
	return h.own, !h.lost
}

// end lets go of the contexts of a holding on which nobody works any more.
func (h *holding) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil {
		h.cancel(nil)
	}
}

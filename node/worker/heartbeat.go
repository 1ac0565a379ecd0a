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
	minHeartbeatInterval = 20 * time.Millisecond
	// beatPatience is how long the answer to a beat is waited for.
	heartbeatTimeout = time.Second
	// lastBeats bounds the farewell of a node that leaves.
	leaveTimeout = 500 * time.Millisecond
)

// beat tells the master what this worker holds, and obeys, until ctx ends. It says farewell then.
func (w *Worker) runHeartbeats(ctx context.Context) {
	tick := time.NewTicker(jetstream.HeartbeatInterval)
	defer tick.Stop()
	var told *jetstream.Sample // the newest that has arrived
	for {
		told = w.sendHeartbeat(ctx, told)
		pause := time.NewTimer(max(minHeartbeatInterval, w.outbox.pace()))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		select {
		case <-ctx.Done():
			w.sendLeave()
			return
		case <-tick.C:
		case <-w.beatNow:
		}
	}
}

// report sends one beat, with what the machine is doing unless that was told before. It gives what has been told now.
func (w *Worker) sendHeartbeat(ctx context.Context, told *jetstream.Sample) *jetstream.Sample {
	ctx, stop := context.WithTimeout(ctx, heartbeatTimeout)
	defer stop()
	b, now := w.heartbeat(), told
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
	w.apply(&orders)
	return now
}

// farewell tells the master that this agent ends.
func (w *Worker) sendLeave() {
	ctx, stop := context.WithTimeout(context.Background(), leaveTimeout) // the worker's own context has ended
	defer stop()
	b := w.heartbeat()
	b.Restarting = w.handover.Load()
	b.Leaving = !b.Restarting
	if _, err := w.cfg.Master.SendHeartbeat(ctx, b); err != nil {
		w.log.Debug("master was not told that this node leaves", "err", err)
	}
}

// state is what a beat says.
func (w *Worker) heartbeat() jetstream.Heartbeat {
	b := jetstream.Heartbeat{Start: w.runNames.prefix, Running: w.Running(), Draining: w.draining.Load(), Outlive: w.cfg.Outlive, Mark: w.mark.Load(),
		Refusals: w.fairShare.refusals(jetstream.MaxRefusals)}
	if w.cfg.KeyringFingerprint != nil {
		b.Keys = w.cfg.KeyringFingerprint()
	}
	for _, h := range w.leaseHandles() {
		if l := h.lease; !h.isLost() {
			b.Leases = append(b.Leases, jetstream.HeldLease{
				Seq: l.Seq, Deliveries: l.Deliveries, ID: l.ID, Sweep: l.Sweep, Attempts: h.runningAttempts(), Hi: h.keptEnd(),
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
func (w *Worker) apply(o *jetstream.Directives) {
	for _, h := range w.leaseHandles() {
		if slices.Contains(o.Stop, h.lease.ID) && h.markLost() {
			w.log.Warn("lease is lost; what runs under it is stopped", "sweep", h.lease.Sweep, "lease", h.lease.ID)
		}
		if slices.Contains(o.Finish, h.lease.ID) {
			h.stopStarting()
		}
	}
	if old := w.without.Swap(&o.Without); old != nil && len(*old) != len(o.Without) {
		w.log.Info("some trials are withheld from this node", "without", o.Without)
		w.wakeDispatcher()
	}
	w.outbox.setPace(o.Pace)
	w.curves.Store(int64(o.Curves))
	if w.mark.Swap(o.Mark) != o.Mark {
		w.requestHeartbeat() // the master waits for what is so now
	}
	was := w.draining.Swap(o.Drain)
	if o.Drain {
		w.haltForDrain()
	}
	if was && !o.Drain && w.gpus != nil {
		w.gpus.ReturnToService()
	}
	if was != o.Drain {
		w.log.Info("drain", "on", o.Drain, "reason", o.Reason)
		w.wakeDispatcher()
		w.requestHeartbeat() // somebody waits for it
	}
	if w.cfg.OnDirectives != nil {
		w.cfg.OnDirectives(o)
	}
}

// moveOn stops, on a node that is drained, the attempts that can go on elsewhere from what they save.
func (w *Worker) haltForDrain() {
	for _, h := range w.leaseHandles() {
		if w.sweeps.hasCheckpoint(h.lease.Sweep) {
			h.halt(errDrained)
		}
	}
}

// halt stops what runs under the holding, to go on later.
func (h *leaseHandle) halt(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.haltCause = cause
	if h.cancel != nil {
		h.cancel(cause)
	}
}

// tellSoon has the next beat go out soon: it says something that the master does not know.
func (w *Worker) requestHeartbeat() {
	select {
	case w.beatNow <- struct{}{}:
	default:
	}
}

// lose stops what runs under the holding. It is not reported or given back: it belongs to somebody else. It reports whether
// anything runs: a lease that this worker has brought to an end is not held by it any more as soon as the master knows.
func (h *leaseHandle) markLost() (runs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	if h.cancel != nil {
		h.cancel(executor.ErrLost)
	}
	return h.runners > 0
}

// gone reports whether the lease is lost.
func (h *leaseHandle) isLost() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}

// under gives the sweep as the trials of this holding see it: they stop when the lease is lost, too. It reports false when that
// is so already.
func (h *leaseHandle) scope(s *sweep) (*sweep, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.baseSweep != s {
		own := *s
		own.ctx, h.cancel = context.WithCancelCause(s.ctx)
		h.baseSweep, h.scopedSweep = s, &own
	}
	if h.lost {
		h.cancel(executor.ErrLost)
	} else if h.haltCause != nil {
		h.cancel(h.haltCause)
	}
	return h.scopedSweep, !h.lost
}

// end lets go of the contexts of a holding on which nobody works any more.
func (h *leaseHandle) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil {
		h.cancel(nil)
	}
}

package worker

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

const (
	// minHeartbeatInterval is the shortest time between two heartbeats: leases that come in short
	// succession share one. The master's pace can make it longer.
	minHeartbeatInterval = 20 * time.Millisecond
	// heartbeatTimeout bounds the wait for the answer to a heartbeat.
	heartbeatTimeout = time.Second
	// leaveTimeout bounds the last heartbeat of a node that leaves.
	leaveTimeout = 500 * time.Millisecond
)

// heartbeatLoop tells the master what this worker holds, and applies the directives in its answers.
type heartbeatLoop struct {
	*capacity
	directives
	cfg      *Config
	runNames runNames
	leases   *leaseTable
	outbox   *outbox
	sweeps   *sweepSet
	tail     *outputTail
	devices  *DeviceTracker

	soon     poll.Signal // there is something that the master does not know yet
	handover atomic.Bool // this agent ends and another one takes over
}

// directives are what the master's last answer says for as long as no other one has come.
type directives struct {
	draining atomic.Bool                           // no more leases are taken
	mark     atomic.Uint64                         // identifies the directives
	curves   atomic.Int64                          // a grid.CurveShare
	withheld atomic.Pointer[map[grid.Scope]string] // parts of this node that get no trials, with the reasons
}

// run tells the master what this worker holds, and applies its directives, until ctx ends. Then it
// says that this agent leaves.
func (hl *heartbeatLoop) run(ctx context.Context) {
	tick := time.NewTicker(jetstream.HeartbeatInterval)
	defer tick.Stop()
	var latest *jetstream.Sample // the newest one that has arrived
	for {
		latest = hl.send(ctx, latest)
		poll.Sleep(ctx, max(minHeartbeatInterval, hl.outbox.pace()))
		select {
		case <-ctx.Done():
			ctx, stop := context.WithTimeout(context.Background(), leaveTimeout) // the worker's own context has ended
			defer stop()
			b := hl.message()
			b.Restarting = hl.handover.Load()
			b.Leaving = !b.Restarting
			if _, err := hl.cfg.Master.SendHeartbeat(ctx, b); err != nil {
				hl.cfg.Logger.Debug("the master could not be told that this node leaves", "err", err)
			}
			return
		case <-tick.C:
		case <-hl.soon:
		}
	}
}

// send sends one heartbeat, with what the machine is doing unless that was sent before. It returns
// the newest sample that has arrived.
func (hl *heartbeatLoop) send(ctx context.Context, latest *jetstream.Sample) *jetstream.Sample {
	ctx, stop := context.WithTimeout(ctx, heartbeatTimeout)
	defer stop()
	b, now := hl.message(), latest
	if hl.cfg.Sample != nil {
		if now = hl.cfg.Sample(); now != latest {
			b.Sample = now
		}
	}
	orders, err := hl.cfg.Master.SendHeartbeat(ctx, b)
	if err != nil {
		if ctx.Err() == nil {
			hl.cfg.Logger.Debug("the master does not answer", "err", err)
		}
		return latest
	}
	hl.apply(&orders)
	return now
}

// message returns the content of a heartbeat.
func (hl *heartbeatLoop) message() jetstream.Heartbeat {
	b := jetstream.Heartbeat{
		Start: hl.runNames.prefix, Running: hl.tail.count(), Draining: hl.draining.Load(), Outlive: hl.cfg.Outlive,
		Mark: hl.mark.Load(), Refusals: hl.fairShare.refusals(jetstream.MaxRefusals),
	}
	if hl.cfg.KeyringFingerprint != nil {
		b.Keys = hl.cfg.KeyringFingerprint()
	}
	for _, h := range hl.leases.all() {
		if l, lost := h.held(); !lost {
			b.Leases = append(b.Leases, l)
		}
	}
	return b
}

// apply follows the master's directives.
func (hl *heartbeatLoop) apply(o *jetstream.Directives) {
	for _, h := range hl.leases.all() {
		if slices.Contains(o.Stop, h.lease.ID) && h.markLost() {
			hl.cfg.Logger.Warn("lease is lost; its attempts are stopped", "sweep", h.lease.Sweep, "lease", h.lease.ID)
		}
		if slices.Contains(o.Finish, h.lease.ID) {
			h.stopStarting()
		}
	}
	if old := hl.withheld.Swap(&o.Without); old != nil && len(*old) != len(o.Without) {
		hl.cfg.Logger.Info("some trials are withheld from this node", "without", o.Without)
		hl.wake.Set()
	}
	hl.outbox.setPace(o.Pace)
	hl.curves.Store(int64(o.Curves))
	if hl.mark.Swap(o.Mark) != o.Mark {
		hl.soon.Set() // the master waits for the state as of now
	}
	was := hl.draining.Swap(o.Drain)
	if o.Drain {
		for _, h := range hl.leases.all() {
			if _, saves := hl.sweeps.preemptible(h.lease.Sweep); saves {
				h.halt(errDrained) // its attempts can continue elsewhere from what they save
			}
		}
	}
	if was && !o.Drain && hl.devices.watch != nil {
		hl.devices.watch.ReturnToService()
	}
	if was != o.Drain {
		hl.cfg.Logger.Info("drain", "on", o.Drain, "reason", o.Reason)
		hl.wake.Set()
		hl.soon.Set() // somebody waits for it
	}
	if hl.cfg.OnDirectives != nil {
		hl.cfg.OnDirectives(o)
	}
}

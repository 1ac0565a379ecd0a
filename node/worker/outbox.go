package worker

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

const (
	// flushInterval is the shortest time between two rounds of reports: each round costs disk
	// flushes, which all that has happened since the last one shares. The disk is the master's, so
	// with many nodes at work it sets a slower pace; maxPace bounds that, since people look at the
	// output.
	flushInterval = 15 * time.Millisecond
	maxPace       = 500 * time.Millisecond
	// outboxBytes and outboxEvents bound what waits to be stored; attempts block when they are
	// reached.
	outboxBytes  = 8 << 20
	outboxEvents = 16384
	// retryInterval is the wait after the store has refused a round, for example because the disk
	// is full.
	retryInterval = 500 * time.Millisecond
	// dropLogInterval is the shortest time between two log messages about dropped reports.
	dropLogInterval = time.Minute
)

// outbox stores reports in rounds: output, then the events that point to it, then the
// acknowledgement of leases. A round that fails is retried until it is stored. Only reports on
// sweeps that the master has no record of are dropped.
type outbox struct {
	cfg        *Config
	wake       poll.Signal
	masterPace atomic.Int64 // the pace that the master has set
	refused    atomic.Bool  // the store has refused the round
	dropLog    rate.Sometimes

	mu       sync.Mutex
	pending  round
	spare    *reports      // an empty list for the next round, see round.recycle
	flushing bool          // a round is being stored
	drained  chan struct{} // closed and replaced when a round has been stored
	dropped  int64         // reports on sweeps that the master has no record of
	closed   chan struct{} // closed once no more reports are accepted
}

// errClosed says that a worker that stops accepts no more reports, because the store refuses them.
var errClosed = errors.New("reports can't be stored, and the node stops")

// round is what one round of reports stores.
type round struct {
	output map[grid.SweepID][]outputPiece
	events map[grid.SweepID]*reports
	spare  *reports // for the first sweep that has events; nil for none
	leases []leaseReport
	bytes  int64
	count  int
}

// outputPiece is output of an attempt.
type outputPiece struct {
	chunk jetstream.Chunk
	ref   *grid.LogRef // set to where the piece was stored
}

// report is an event and what to do once it is stored.
type report struct {
	event  grid.Event
	ref    *grid.LogRef // for Finished: where the output is
	stored func()
}

// reports are the events of one sweep in a round.
type reports struct {
	events []grid.Event
	refs   []*grid.LogRef // by event: where its output is; nil for an event without output
	stored []func()       // what to do once they are stored
}

type leaseReport struct {
	held   *jetstream.GrantedLease
	stored func()
}

func newOutbox(cfg *Config) *outbox {
	return &outbox{
		cfg: cfg, wake: poll.NewSignal(), pending: newRound(nil), drained: make(chan struct{}),
		closed:  make(chan struct{}),
		dropLog: rate.Sometimes{First: 1, Interval: dropLogInterval},
	}
}

func newRound(spare *reports) round {
	return round{output: map[grid.SweepID][]outputPiece{}, events: map[grid.SweepID]*reports{}, spare: spare}
}

func (r *round) addReport(id grid.SweepID, rep report) {
	all := r.events[id]
	if all == nil {
		if all, r.spare = r.spare, nil; all == nil {
			all = &reports{}
		}
		r.events[id] = all
	}
	all.events, all.refs = append(all.events, rep.event), append(all.refs, rep.ref)
	if rep.stored != nil {
		all.stored = append(all.stored, rep.stored)
	}
}

// recycle empties the longest list of a round that is stored, for a later round: at full rate each
// has thousands of events. It returns nil when so long a list is no longer needed.
func (r *round) recycle() *reports {
	var longest *reports
	for _, all := range r.events {
		if longest == nil || len(all.events) > len(longest.events) {
			longest = all
		}
	}
	if longest == nil || len(longest.events) < cap(longest.events)/4 {
		return nil
	}
	clear(longest.events)
	clear(longest.refs)
	clear(longest.stored)
	return &reports{longest.events[:0], longest.refs[:0], longest.stored[:0]}
}

// addOutput queues a piece of output. It blocks while too much waits, until ctx ends.
func (o *outbox) addOutput(ctx context.Context, id grid.SweepID, p outputPiece) error {
	return o.enqueue(ctx, func(r *round) {
		r.output[id] = append(r.output[id], p)
		r.bytes += int64(len(p.chunk.Data))
	})
}

// addEvent queues an event. It blocks while too much waits.
func (o *outbox) addEvent(id grid.SweepID, rep report) {
	// It waits for room as long as the store refuses. When the node stops meanwhile, the spool
	// keeps the event.
	_ = o.enqueue(context.Background(), func(r *round) { r.addReport(id, rep) })
}

// addRelease queues the end of a lease: the event that closes it, then its return.
func (o *outbox) addRelease(h *jetstream.GrantedLease, stored func()) {
	_ = o.enqueue(context.Background(), func(r *round) {
		e := grid.Event{Kind: grid.Released, Lease: h.Seq, LeaseID: h.ID, Time: time.Now().UnixMicro()}
		r.addReport(h.Sweep, report{event: e})
		r.leases = append(r.leases, leaseReport{h, stored})
	})
}

func (o *outbox) enqueue(ctx context.Context, put func(*round)) error {
	for {
		if poll.Closed(o.closed) {
			return errClosed // later reports must not overtake one that was left out
		}
		o.mu.Lock()
		if o.pending.bytes < outboxBytes && o.pending.count < outboxEvents {
			put(&o.pending)
			o.pending.count++
			o.mu.Unlock()
			o.wake.Set()
			return nil
		}
		drained := o.drained
		o.mu.Unlock()
		select {
		case <-drained:
		case <-o.closed:
			return errClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// closeIfRefused ends the waiting for room, if the store refuses what has been queued.
func (o *outbox) closeIfRefused() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.refused.Load() || poll.Closed(o.closed) {
		return
	}
	o.cfg.Logger.Warn("reports can't be stored while the node stops; the next start makes up for them")
	close(o.closed)
}

// run stores rounds until ctx ends.
func (o *outbox) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		pause.Reset(max(flushInterval, o.pace()))
		o.mu.Lock()
		r := o.pending
		o.pending, o.spare = newRound(o.spare), nil
		o.flushing = true
		o.signalDrainedLocked()
		o.mu.Unlock()
		o.storeRound(ctx, &r)
		spare := r.recycle()
		o.mu.Lock()
		o.flushing, o.spare = false, spare
		o.signalDrainedLocked()
		o.mu.Unlock()
	}
}

// pace is the time between two rounds that the master has set.
func (o *outbox) pace() time.Duration { return time.Duration(o.masterPace.Load()) }

func (o *outbox) setPace(d time.Duration) { o.masterPace.Store(int64(min(max(d, 0), maxPace))) }

func (o *outbox) signalDrainedLocked() {
	close(o.drained)
	o.drained = make(chan struct{})
}

func (o *outbox) storeRound(ctx context.Context, r *round) {
	for id, pieces := range r.output {
		chunks := make([]jetstream.Chunk, len(pieces))
		for i := range pieces {
			chunks[i] = pieces[i].chunk
		}
		if !o.storeWithRetry(ctx, "store output", id, len(pieces), func() error {
			first, last, err := o.cfg.Master.PublishOutput(ctx, id, chunks)
			if err != nil {
				return err
			}
			for i := range pieces {
				ref := pieces[i].ref
				ref.First, ref.Last = cmp.Or(ref.First, first), last
			}
			return nil
		}) {
			return
		}
	}
	for id, all := range r.events {
		for i, ref := range all.refs {
			if ref != nil {
				all.events[i].Result.Log = *ref
			}
		}
		batch := &grid.Batch{V: grid.EventVersion, Sweep: id, Node: o.cfg.Node, Events: all.events}
		if !o.storeWithRetry(ctx, "store events", id, len(all.events), func() error {
			return o.cfg.Master.PublishEvents(ctx, batch)
		}) {
			return
		}
		for _, stored := range all.stored {
			stored()
		}
	}
	for _, l := range r.leases {
		if err := o.cfg.Master.ReturnLease(ctx, l.held); err != nil {
			// The master takes it back by itself; its trials are known to be done by then.
			o.cfg.Logger.Debug("lease could not be given back", "sweep", l.held.Sweep, "err", err)
		}
		l.stored()
	}
}

// storeWithRetry tries to store reports of a sweep until it succeeds, or the master has no record
// of the sweep: then nobody could read them, and they are dropped. It returns false when ctx ends
// first.
func (o *outbox) storeWithRetry(ctx context.Context, what string, id grid.SweepID, reports int, try func() error) bool {
	for warned := false; ; warned = true {
		err := try()
		if errors.Is(err, jetstream.ErrUnknownSweep) {
			o.mu.Lock()
			o.dropped += int64(reports)
			dropped := o.dropped
			o.mu.Unlock()
			o.dropLog.Do(func() {
				o.cfg.Logger.Warn("reports on a sweep that the master has no record of are dropped",
					"sweep", id, "reports", reports, "dropped", dropped)
			})
			err = nil
		}
		if o.refused.Store(err != nil); err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !warned {
			o.cfg.Logger.Warn("reports can't be stored; trials wait until they can",
				"step", what, "sweep", id, "err", err)
		}
		if !poll.Sleep(ctx, retryInterval) {
			return false
		}
	}
}

// drain waits until all that is queued is stored, or closeIfRefused has closed the outbox.
func (o *outbox) drain(ctx context.Context) error {
	for {
		o.mu.Lock()
		done := o.pending.count == 0 && !o.flushing
		drained := o.drained
		o.mu.Unlock()
		if done {
			return nil
		}
		o.wake.Set()
		select {
		case <-drained:
		case <-o.closed:
			return errClosed // the rest is refused
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

package master

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// queueDepth is how many leases the queue holds for each slot: one that runs and one that
// waits.
const queueDepth = 2

// queueFeeder keeps the lease queue topped up from the feeds of the active sweeps.
type queueFeeder struct {
	m         *Master
	s         *scheduler
	slotCache map[grid.Resources]int // see slots
}

// topUp tops up the queue: in each lane, the sweep that holds the least of it goes first.
func (q *queueFeeder) topUp(ctx context.Context) error {
	q.slotCache = map[grid.Resources]int{}
	for _, l := range q.openLanes() {
		slots := q.slots(l.need)
		q.rebalance(ctx, l, slots)
		for l.outstanding() < queueDepth*slots {
			ok, err := q.leaseOne(ctx, l, slots)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
		}
	}
	return nil
}

// slots returns how many trials with these resources the cluster can run at a time, as of this pass
// of topUp. It is cached because asking each node takes a while.
func (q *queueFeeder) slots(r grid.Resources) int {
	n, ok := q.slotCache[r]
	if !ok {
		n = q.m.cfg.Capacity.Slots(r)
		q.slotCache[r] = n
	}
	return n
}

// laneFeeds is a lane with the active sweeps whose trials may be leased into it.
type laneFeeds struct {
	name  grid.Lane
	need  grid.Resources // of each trial in the lane
	feeds []*feed
}

func (q *queueFeeder) openLanes() map[grid.Lane]*laneFeeds {
	lanes := map[grid.Lane]*laneFeeds{}
	for _, f := range q.s.feeds {
		if !f.sweep.Active() || f.sweep.Task.Resources.Check() != nil {
			continue
		}
		for _, need := range f.needs(&f.retries) {
			name := f.laneFor(need)
			if lanes[name] == nil {
				lanes[name] = &laneFeeds{name: name, need: need}
			}
			lanes[name].feeds = append(lanes[name].feeds, f)
		}
	}
	return lanes
}

func (l *laneFeeds) outstanding() int {
	n := 0
	for _, f := range l.feeds {
		n += f.leasesInLane[l.name]
	}
	return n
}

// rebalance withdraws leases that no node has taken from a full queue, for sweeps that have none
// there: they get their share from the next free slot on, not only after everything that was leased
// before has run.
func (q *queueFeeder) rebalance(ctx context.Context, l *laneFeeds, slots int) {
	limit := queueDepth * slots
	if len(l.feeds) < 2 || l.outstanding() < limit {
		return
	}
	room, share := 0, max(1, limit/len(l.feeds))
	for _, f := range l.feeds {
		if _, some := f.nextLease(l.need, time.Now(), slots); some && f.leasesInLane[l.name] == 0 {
			room += share
		}
	}
	slices.SortFunc(l.feeds, func(a, b *feed) int {
		return cmp.Compare(b.leasesInLane[l.name], a.leasesInLane[l.name])
	})
	for _, f := range l.feeds {
		if room <= 0 {
			return
		}
		newestFirst := func(a, b grid.LeaseID) int { return cmp.Compare(f.leases[b].seq, f.leases[a].seq) }
		for _, id := range slices.SortedFunc(maps.Keys(f.leases), newestFirst) {
			if room <= 0 || f.leasesInLane[l.name] <= share {
				break
			}
			if f.leases[id].lane == l.name && q.s.withdrawLease(ctx, f, id) {
				room--
			}
		}
	}
}

// leaseOne publishes one lease of the sweep with the smallest share; false when no sweep of the
// lane has anything to lease. Among equals, the sweep that has waited longest goes first, so that
// each has its turn when the queue is shorter than the list of sweeps.
func (q *queueFeeder) leaseOne(ctx context.Context, lane *laneFeeds, slots int) (bool, error) {
	slices.SortFunc(lane.feeds, func(a, b *feed) int {
		return cmp.Or(cmp.Compare(a.leasesInLane[lane.name], b.leasesInLane[lane.name]),
			cmp.Compare(a.newestSeq, b.newestSeq), a.sweep.Submitted.Compare(b.sweep.Submitted))
	})
	now := time.Now()
	for _, f := range lane.feeds {
		l, ok := f.nextLease(lane.need, now, slots)
		if !ok {
			continue
		}
		if ok, err := q.recordLane(ctx, f, lane); err != nil {
			return false, err
		} else if !ok {
			continue
		}
		id, err := q.publishLease(ctx, lane, f, &l)
		if err == nil {
			f.addPublished(id, l)
		}
		return err == nil, err
	}
	return false, nil
}

// recordLane writes what trials in a lane need into the sweep's record, where nodes read it, before
// a lease is in the lane. It returns false while the sweep's trials are in too many lanes. It
// removes lanes that nothing is leased in or waits for.
func (q *queueFeeder) recordLane(ctx context.Context, f *feed, lane *laneFeeds) (bool, error) {
	if _, known := f.lanes[lane.name]; known || lane.name == f.sweep.Lane() {
		return true, nil
	}
	wanted := f.needs(&f.retries)
	record, err := q.m.editRecord(ctx, f.sweep.ID, func(r *jetstream.Record) (bool, error) {
		lanes := map[grid.Lane]grid.Resources{lane.name: lane.need}
		for name, need := range r.Lanes {
			if f.leasesInLane[name] > 0 || name == f.laneFor(need) && slices.Contains(wanted, need) {
				lanes[name] = need
			}
		}
		if len(lanes) > jetstream.MaxLanes {
			return false, nil
		}
		r.Lanes = lanes
		return true, nil
	})
	if err != nil {
		return false, fmt.Errorf("open lane %s: %w", lane.name, err)
	}
	f.lanes = record.Lanes
	_, open := f.lanes[lane.name]
	return open, nil
}

// publishLease puts a lease into the queue and keeps its sequence.
func (q *queueFeeder) publishLease(ctx context.Context, lane *laneFeeds, f *feed, l *lease) (grid.LeaseID, error) {
	id := q.m.cfg.Store.Queue.NewID()
	q.m.leases.add(id)
	updates := len(f.sweep.Updates)
	if r, ok := q.m.Sweep(f.sweep.ID); ok {
		updates = len(r.Sweep.Updates) // a retry may have stored one that is not applied here yet
	}
	var snapshot, bad int
	if snapshots := q.m.cfg.Snapshots; snapshots != nil && f.sweep.Task.Checkpoint != nil { // the lease has one trial
		snapshot, bad = snapshots.Newest(grid.TrialID{Sweep: f.sweep.ID, Index: l.lo})
	}
	avoid, elsewhere := q.avoidedNodes(f, l.lo, lane)
	seq, err := q.m.cfg.Store.Queue.Publish(ctx, jetstream.Lease{
		Sweep: f.sweep.ID, Lo: l.lo, Hi: l.hi, Attempt: l.attempt, Shape: string(lane.name), ID: id, Updates: updates,
		Snapshot: snapshot, Bad: bad, Level: f.sweep.Level(), Avoid: avoid, Elsewhere: elsewhere,
		Quiet: l.attempt > 1 && l.mode != modeAnnounced,
	})
	if err != nil {
		q.m.leases.remove(id)
		return "", fmt.Errorf("lease %s [%d,%d): %w", f.sweep.ID, l.lo, l.hi, err)
	}
	l.seq, l.elsewhere = seq, elsewhere
	return id, nil
}

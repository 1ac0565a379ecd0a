package master

import (
	"iter"
	"math"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// lease is what the master knows of a lease that it has published.
type lease struct {
	lo, hi  int64
	attempt int       // of each trial
	mode    leaseMode // of attempts above 1
	lane    grid.Lane
	since   time.Time
	seq     uint64 // in the queue; 0 for a lease that is not there

	// detached is true for a lease that the queue has lost or that was taken out of it, while a
	// node works on it.
	detached      bool
	grantedUnheld time.Time // since when it is known to be granted without any node reporting to hold it

	elsewhere bool // the nodes that avoid it give it back, so a grant says little
}

// feed is what is left to do of one sweep: wanted = [0,count), have = done + leased + waiting for a
// retry, and nextLease proposes what is missing. It does no I/O. Forgetting a feed and loading it
// again from history loses nothing.
type feed struct {
	sweep    *grid.Sweep
	task     string // TaskName of the sweep
	count    int64
	done     ranges.Set  // terminal
	assigned ranges.Set  // done, leased, or in retries
	spread   grid.Spread // with grid.OrderSpread

	longest   *longestFirst // with grid.OrderLongest; else nil
	reordered bool          // leases in the previous order wait in the queue

	firstBlock    int64 // the blocks before this one are assigned, see block
	leases        map[grid.LeaseID]lease
	newestSeq     uint64                  // sequence of the newest lease
	loadedAt      uint64                  // the last event that was known when the feed was loaded
	started       map[int64]int           // attempts of trials known to run
	awayTrials    map[int64]bool          // trials with an attempt on a node that is not heard from
	snapshotNodes map[int64]grid.NodeID   // nodes that alone have what trials saved last
	failedOn      map[int64][]failedPlace // where attempts of trials failed that later ones avoid
	retries       retryQueue
	pace          trialPace

	sharing      *gpuSharing                  // how trials share GPUs, with gpu_memory: auto; else nil
	slots        func(grid.Resources) int     // how many attempts with these resources the cluster can run at a time
	fits         func(grid.Resources) bool    // whether a node could run a trial with these; nil allows all
	escalated    map[int64]grid.Resources     // of trials whose next attempt gets other resources than the task asks for
	lanes        map[grid.Lane]grid.Resources // of the record, beside the sweep's own
	leasesInLane map[grid.Lane]int            // number of leases in each lane

	earlyStop *earlyStopping // with Task.Stop; else nil

	drained []chan struct{} // closed when a cancelled sweep has no lease left
}

func newFeed(s *grid.Sweep) *feed {
	f := &feed{
		task: s.TaskName(), leases: map[grid.LeaseID]lease{}, started: map[int64]int{}, awayTrials: map[int64]bool{},
		escalated: map[int64]grid.Resources{}, leasesInLane: map[grid.Lane]int{}, failedOn: map[int64][]failedPlace{}, snapshotNodes: map[int64]grid.NodeID{},
	}
	f.setSweep(s)
	return f
}

// setSweep applies the newest record of the sweep, which may have been extended.
func (f *feed) setSweep(s *grid.Sweep) {
	if count := s.Space.Count(); count != f.count {
		f.count, f.firstBlock = count, 0
		switch {
		case s.Task.Order == grid.OrderSpread:
			f.spread = grid.NewSpread(count)
		case f.longest != nil:
			f.longest.extend(s.Space)
		case s.Task.Order == grid.OrderLongest:
			f.longest = newLongestFirst(s.Space)
		}
	}
	f.sweep = s
}

// block returns the nth block of trials in the order in which they start; when ordered by index,
// all trials are one block. It returns false past the last block.
func (f *feed) block(n int64) (ranges.Range, bool) {
	var order interface {
		Blocks() int64
		Block(n int64) ranges.Range
	}
	switch f.sweep.Task.Order {
	case grid.OrderSpread:
		order = f.spread
	case grid.OrderLongest:
		order = f.longest
	default:
		return ranges.Range{Lo: 0, Hi: f.count}, n == 0
	}
	if n >= order.Blocks() {
		return ranges.Range{}, false
	}
	return order.Block(n), true
}

// missing yields the trials that nobody has, in the order in which they start.
func (f *feed) missing() iter.Seq[ranges.Range] {
	return func(yield func(ranges.Range) bool) {
		for n := f.firstBlock; ; n++ {
			b, ok := f.block(n)
			if !ok {
				return
			}
			gap, some := f.assigned.Gap(b.Lo, b.Hi)
			if !some && n == f.firstBlock {
				f.firstBlock++
			}
			for ; some; gap, some = f.assigned.Gap(gap.Hi, b.Hi) {
				if !yield(gap) {
					return
				}
			}
		}
	}
}

// loadHistory takes over what history knows. Trials with attempts that have not ended, and that no
// restored lease covers, belong to leases that no longer exist.
func (f *feed) loadHistory(known *history.Remaining, now time.Time) {
	f.loadedAt = known.Applied
	f.done = known.Terminal.Clone()
	f.done.Remove(f.count, math.MaxInt64) // what lies beyond is not a trial of this sweep
	leased := f.assigned
	f.assigned = f.done.Clone()
	for r := range leased.All() {
		f.assigned.Add(r.Lo, r.Hi)
	}
	later := map[int]*ranges.Set{}
	for _, w := range known.Reopened {
		if later[w.Attempts] == nil {
			later[w.Attempts] = f.leasedAfter(w.Attempts)
		}
		later[w.Attempts].Gaps(w.Lo, min(w.Hi, f.count), func(g ranges.Range) {
			f.assigned.Add(g.Lo, g.Hi)
			f.retries.addRange(g, max(w.Attempts+1, 2), f.sweep.Task.Resources) // as in queueRetry
		})
	}
	open := known.Open
	for i := range open {
		if len(open[i].Away) > 0 {
			f.awayTrials[open[i].Index] = true
		}
		index := open[i].Index
		if index >= f.count {
			continue
		}
		f.escalate(index, open[i].Failures)
		if failed := &open[i].Result; open[i].State == grid.Pending && failed.Class != grid.ClassNone {
			f.recordFailedOn(index, open[i].Node, failed.Class, now)
			f.recordSnapshotNode(&history.Transition{Index: index, Node: open[i].Node, Class: failed.Class, Snapshot: failed.Snapshot})
		}
		if f.isLeased(index) {
			f.started[index] = open[i].Attempts
			continue
		}
		f.queueRetry(index, open[i].Attempts+1, time.Time{}, leaseModeAfter(open[i].Failures))
	}
}

// leasedAfter returns the trials that are leased for attempts after this one. What a lease of an
// earlier attempt still reports about a trial that has failed since does not count.
func (f *feed) leasedAfter(attempt int) *ranges.Set {
	later := &ranges.Set{}
	for _, l := range f.leases {
		if l.attempt > attempt {
			later.Add(l.lo, l.hi)
		}
	}
	return later
}

// restoreLease takes over a lease that is in the queue.
func (f *feed) restoreLease(l *jetstream.QueuedLease, now time.Time) {
	m := modeRange
	if l.Attempt > 1 && !l.Quiet {
		m = modeAnnounced
	}
	f.addLease(l.ID, lease{lo: l.Lo, hi: l.Hi, attempt: l.Attempt, mode: m, lane: grid.Lane(l.Shape), since: now, seq: l.Seq})
	f.assigned.Add(l.Lo, l.Hi)
	f.newestSeq = max(f.newestSeq, l.Seq)
}

// addLease and removeLease keep the leases and their number in each lane.
func (f *feed) addLease(id grid.LeaseID, l lease) {
	f.removeLease(id)
	f.leases[id] = l
	f.leasesInLane[l.lane]++
}

func (f *feed) removeLease(id grid.LeaseID) {
	l, ok := f.leases[id]
	if !ok {
		return
	}
	delete(f.leases, id)
	if f.leasesInLane[l.lane]--; f.leasesInLane[l.lane] == 0 {
		delete(f.leasesInLane, l.lane)
	}
}

// baseNeed returns the resources of trials in the sweep's own lane.
func (f *feed) baseNeed() grid.Resources { return f.sweep.Task.Resources.Initial() }

// needs returns the resources of trials that may be leased now.
func (f *feed) needs() []grid.Resources {
	all := []grid.Resources{f.baseNeed()}
	add := func(need grid.Resources) {
		if need.CPUs > 0 && need != f.sweep.Task.Resources && !slices.Contains(all, need) {
			all = append(all, need)
		}
	}
	for need := range f.retries.byNeed {
		add(need)
	}
	if f.sharing != nil {
		for _, need := range f.sharing.parts {
			add(need)
		}
	}
	return all
}

// laneFor returns the lane of trials with these resources.
func (f *feed) laneFor(need grid.Resources) grid.Lane {
	return grid.LaneOf(f.sweep.Priority, need, f.sweep.Task.Image)
}

// escalate decides what the next attempt of a trial with these failures gets.
func (f *feed) escalate(i int64, failed map[grid.Class]int) {
	delete(f.escalated, i)
	if len(failed) == 0 {
		return
	}
	fits := f.fits
	if fits == nil {
		fits = func(grid.Resources) bool { return true }
	}
	if need := f.sweep.Task.Escalated(failed, fits); need != f.sweep.Task.Resources {
		f.escalated[i] = need
	}
}

// nextLease proposes a lease of trials with these resources: a retry that is due, else the next
// trials that nobody has.
func (f *feed) nextLease(need grid.Resources, now time.Time, slots int) (lease, bool) {
	if limit := f.sweep.MaxParallel; limit > 0 && len(f.leases) >= limit {
		return lease{}, false
	}
	if l, ok := f.nextRetry(need, need, f.leaseSize(slots), now); ok {
		return l, true
	}
	if f.sharing != nil {
		return f.nextSharedLease(need, now, slots)
	}
	if need != f.baseNeed() {
		return lease{}, false
	}
	for gap := range f.missing() {
		return lease{lo: gap.Lo, hi: min(gap.Hi, gap.Lo+f.leaseSize(slots)), attempt: 1, lane: f.laneFor(need), since: now}, true
	}
	return lease{}, false
}

// nextRetry proposes a lease of further attempts with these resources, in the lane of trials with
// the resources of lane.
func (f *feed) nextRetry(need, lane grid.Resources, size int64, now time.Time) (lease, bool) {
	trials, attempt, m, ok := f.retries.due(need, now)
	if !ok {
		return lease{}, false
	}
	return lease{lo: trials.Lo, hi: min(trials.Hi, trials.Lo+size), attempt: attempt, mode: m, lane: f.laneFor(lane), since: now}, true
}

// leaseSize returns how many trials the next lease may cover.
func (f *feed) leaseSize(slots int) int64 {
	if f.sweep.Task.Checkpoint != nil {
		return 1 // a lease names the snapshot from which its trial continues
	}
	return leaseSize(f.pace.average, f.pace.lastSize, f.count-f.assigned.Count()+int64(f.retries.len()), slots)
}

// addPublished records that a proposed lease is in the queue.
func (f *feed) addPublished(id grid.LeaseID, l lease) {
	f.addLease(id, l)
	f.newestSeq = l.seq
	if l.attempt > 1 {
		f.retries.remove(l.lo, l.hi)
	} else {
		f.assigned.Add(l.lo, l.hi)
	}
	if l.attempt == 1 || l.hi-l.lo > 1 {
		f.pace.lastSize = l.hi - l.lo
	}
}

// maxUnreported is how many trials of a lease a node may have started without having reported any.
const maxUnreported = 16

// requeueOneByOne requeues, one per lease, the trials of a dead node's lease that it may have
// started. They are further attempts, which are announced before they start, so a trial that kills
// its node is identified.
func (f *feed) requeueOneByOne(id grid.LeaseID) {
	l, left := f.leases[id], maxUnreported
	f.done.Gaps(l.lo, l.hi, func(g ranges.Range) {
		for i := g.Lo; i < g.Hi && left > 0; i++ {
			if !f.retries.has(i) {
				f.queueRetry(i, max(f.started[i], l.attempt)+1, time.Time{}, modeAnnounced)
				left--
			}
		}
	})
}

// dropLease forgets a lease: the trials that it did not finish are missing again.
func (f *feed) dropLease(id grid.LeaseID) {
	l, ok := f.leases[id]
	if !ok {
		return
	}
	f.removeLease(id)
	f.requeueTrials(ranges.Range{Lo: l.lo, Hi: l.hi}, l)
}

// shortenLease takes the trials from hi on out of a lease, because its node gives them back.
func (f *feed) shortenLease(id grid.LeaseID, hi int64) {
	l, ok := f.leases[id]
	if !ok || hi <= l.lo || hi >= l.hi {
		return
	}
	rest := ranges.Range{Lo: hi, Hi: l.hi}
	l.hi = hi
	f.leases[id] = l
	f.requeueTrials(rest, l)
}

// requeueTrials makes those trials of a former lease missing again that are neither done nor in
// another lease. A lease of an earlier attempt covers only the trials that are known to run under
// it: what it reports of others may no longer count.
func (f *feed) requeueTrials(trials ranges.Range, was lease) {
	var missing ranges.Set
	f.done.Gaps(trials.Lo, trials.Hi, func(g ranges.Range) { missing.Add(g.Lo, g.Hi) })
	if missing.Count() == 0 {
		return
	}
	for _, l := range f.leases {
		if l.attempt >= was.attempt {
			missing.Remove(l.lo, l.hi)
		}
	}
	for g := range missing.All() {
		for i := g.Lo; i < g.Hi; i++ {
			switch attempts := f.started[i]; {
			case f.retries.has(i):
			case attempts > 0 && f.hasLaterLease(i, attempts-1): // it runs under another lease
			case attempts > 0: // how far it came is not known
				f.queueRetry(i, max(attempts+1, was.attempt), time.Time{}, modeAnnounced)
			case was.attempt > 1:
				f.queueRetry(i, was.attempt, time.Time{}, was.mode)
			default:
				f.assigned.Remove(i, i+1)
				f.firstBlock = 0
			}
		}
	}
}

// adoptLease takes over a lease of trials [lo,hi) that a node works on although the queue does not
// have it. Some of them may be leased once more by now.
func (f *feed) adoptLease(id grid.LeaseID, lo, hi int64, attempt int, now time.Time) {
	f.addLease(id, lease{lo: lo, hi: hi, attempt: attempt, lane: f.sweep.Lane(), since: now, detached: true})
}

// leasesOver returns the other leases that hold trial i.
func (f *feed) leasesOver(i int64, but grid.LeaseID) []grid.LeaseID {
	var all []grid.LeaseID
	for id, l := range f.leases {
		if id != but && l.lo <= i && i < l.hi {
			all = append(all, id)
		}
	}
	return all
}

// isLeased reports whether some lease holds trial i.
func (f *feed) isLeased(i int64) bool {
	for _, l := range f.leases {
		if l.lo <= i && i < l.hi {
			return true
		}
	}
	return false
}

// apply applies a transition of one trial.
func (f *feed) apply(t *history.Transition, now time.Time) {
	if t.Index < 0 || t.Index >= f.count {
		return
	}
	f.observeGPUUse(t)
	switch t.Change {
	case grid.Began:
		f.started[t.Index] = t.Attempts
	case grid.Done:
		delete(f.started, t.Index)
		delete(f.failedOn, t.Index)
		delete(f.snapshotNodes, t.Index)
		f.retries.remove(t.Index, t.Index+1)
		delete(f.escalated, t.Index)
		f.done.Add(t.Index, t.Index+1)
		f.assigned.Add(t.Index, t.Index+1)
		if t.Class != grid.ClassCancel { // it would have taken longer
			f.pace.observe(time.Duration(t.Ended-t.Started) * time.Microsecond)
		}
		f.noteTime(t)
	case grid.Retry:
		delete(f.started, t.Index)
		f.escalate(t.Index, t.Failures)
		f.recordFailedOn(t.Index, t.Node, t.Class, now)
		f.recordSnapshotNode(t)
		if !f.hasLaterLease(t.Index, t.Attempts) {
			f.queueRetry(t.Index, t.Attempts+1, now.Add(grid.FailureOf(t.Class).Wait(t.Attempts)), leaseModeAfter(t.Failures))
		}
	case grid.Reconnect:
		f.started[t.Index] = t.Attempts
		f.assigned.Add(t.Index, t.Index+1)
		f.retries.remove(t.Index, t.Index+1)
	case grid.Reopen:
		delete(f.escalated, t.Index)
		f.done.Remove(t.Index, t.Index+1)
		f.queueRetry(t.Index, t.Attempts+1, time.Time{}, modeRange)
	}
}

// leaseModeAfter returns how the next attempt of a trial with these failures is leased.
func leaseModeAfter(failed map[grid.Class]int) leaseMode {
	if failed[grid.ClassCrash] > 0 {
		return modeAnnounced
	}
	return modeRange
}

// hasLaterLease reports whether a lease for a later attempt than the failed one exists already.
func (f *feed) hasLaterLease(i int64, attempts int) bool {
	for _, l := range f.leases {
		if l.lo <= i && i < l.hi && l.attempt > attempts {
			return true
		}
	}
	return false
}

// queueRetry queues a further attempt of trial i for when it is due; the zero time means now.
func (f *feed) queueRetry(i int64, attempt int, due time.Time, m leaseMode) {
	f.assigned.Add(i, i+1)
	if len(f.failedOn[i]) > 0 || f.snapshotNodes[i] != "" {
		m = max(m, modeSingle)
	}
	need, ok := f.escalated[i]
	if !ok {
		need = f.sweep.Task.Resources
	}
	f.retries.add(retry{index: i, attempt: max(attempt, 2), mode: m, need: need, due: due})
}

// signalDrained wakes the callers that wait for the end of a cancelled sweep's leases.
func (f *feed) signalDrained() {
	for _, settled := range f.drained {
		close(settled)
	}
	f.drained = nil
}

// complete reports whether every trial of the sweep is terminal.
func (f *feed) complete() bool { return f.done.Count() >= f.count }

// trialPace measures how long trials take, to size leases.
type trialPace struct {
	average  time.Duration
	lastSize int64 // of the last lease of new trials
}

func (p *trialPace) observe(d time.Duration) {
	d = max(d, time.Microsecond)
	if p.average == 0 {
		p.average = d
		return
	}
	p.average += (d - p.average) / 8
	p.average = max(p.average, time.Microsecond)
}

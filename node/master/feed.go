package master

import (
	"maps"
	"math"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// feed is what is left to do of one sweep: wanted = [0,count), have = done + leased + waiting for a
// retry, and nextLease proposes what is missing. It does no I/O. Forgetting a feed and loading it
// again from history loses nothing.
type feed struct {
	task string // TaskName of the sweep
	trialNeeds
	backlog
	leaseSet
	openTrials
	retries   retryQueue
	pace      trialPace
	earlyStop *earlyStopping // with Task.Stop; else nil
	loadedAt  uint64         // the last event that was known when the feed was loaded

	drained waiters // released when a cancelled sweep has no lease left
}

func newFeed(s *grid.Sweep) *feed {
	f := &feed{
		task: s.TaskName(),
		trialNeeds: trialNeeds{
			fits: func(grid.Resources) bool { return true }, escalated: map[int64]grid.Resources{},
		},
		leaseSet: leaseSet{leases: map[grid.LeaseID]lease{}, leasesInLane: map[grid.Lane]int{}},
		openTrials: openTrials{
			started: map[int64]int{}, awayTrials: map[int64]bool{},
			snapshotNodes: map[int64]grid.NodeID{}, failedOn: map[int64][]failedPlace{},
		},
	}
	f.setSweep(s)
	return f
}

// setSweep applies the newest record of the sweep, which may have been extended.
func (f *feed) setSweep(s *grid.Sweep) {
	f.setSpace(s.Task.Order, s.Space)
	f.sweep = s
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
		later[w.Attempts].Gaps(w.Lo, min(w.Hi, f.count), func(g ranges.Range) { f.reopen(g, w.Attempts) })
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
			f.recordFailure(&history.Transition{
				Index: index, Node: open[i].Node, Class: failed.Class, Snapshot: failed.Snapshot,
			}, f.sweep, now)
		}
		if len(f.leasesOver(index, "")) > 0 {
			f.started[index] = open[i].Attempts
			continue
		}
		f.queueRetry(index, open[i].Attempts+1, time.Time{}, leaseModeAfter(open[i].Failures))
	}
}

// restoreLease takes over a lease that is in the queue.
func (f *feed) restoreLease(l *jetstream.QueuedLease, now time.Time) {
	m := modeRange
	if l.Attempt > 1 && !l.Quiet {
		m = modeAnnounced
	}
	f.addLease(l.ID, lease{
		lo: l.Lo, hi: l.Hi, attempt: l.Attempt, mode: m, lane: grid.Lane(l.Shape), since: now, seq: l.Seq,
	})
	f.assigned.Add(l.Lo, l.Hi)
	f.newestSeq = max(f.newestSeq, l.Seq)
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
		hi := min(gap.Hi, gap.Lo+f.leaseSize(slots))
		return lease{lo: gap.Lo, hi: hi, attempt: 1, lane: f.laneFor(need), since: now}, true
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
	hi := min(trials.Hi, trials.Lo+size)
	return lease{lo: trials.Lo, hi: hi, attempt: attempt, mode: m, lane: f.laneFor(lane), since: now}, true
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

// apply applies a transition of one trial.
func (f *feed) apply(t *history.Transition, now time.Time) {
	if t.Index < 0 || t.Index >= f.count {
		return
	}
	if f.sharing != nil && t.Measured != nil {
		f.sharing.observe(&f.sweep.Task, f.measureValue(t.Index), t.Measured)
	}
	switch t.Change {
	case grid.Began:
		f.started[t.Index] = t.Attempts
	case grid.Done:
		f.forget(t.Index)
		f.retries.remove(t.Index, t.Index+1)
		delete(f.escalated, t.Index)
		f.done.Add(t.Index, t.Index+1)
		f.assigned.Add(t.Index, t.Index+1)
		ran := time.Duration(t.Ended-t.Started) * time.Microsecond
		if t.Class != grid.ClassCancel { // it would have taken longer
			f.pace.observe(ran)
		}
		if t.State == grid.Succeeded {
			f.addRunTime(t.Index, ran)
		}
	case grid.Retry:
		delete(f.started, t.Index)
		f.escalate(t.Index, t.Failures)
		f.recordFailure(t, f.sweep, now)
		if !f.hasLaterLease(t.Index, t.Attempts) {
			due := now.Add(grid.FailureOf(t.Class).Wait(t.Attempts))
			f.queueRetry(t.Index, t.Attempts+1, due, leaseModeAfter(t.Failures))
		}
	case grid.Reconnect:
		f.started[t.Index] = t.Attempts
		f.assigned.Add(t.Index, t.Index+1)
		f.retries.remove(t.Index, t.Index+1)
	case grid.Reopen:
		f.reopen(ranges.Range{Lo: t.Index, Hi: min(t.End, f.count)}, t.Attempts)
	}
}

// reopen queues further attempts of trials that have ended, so that none is in the queue.
func (f *feed) reopen(trials ranges.Range, attempts int) {
	maps.DeleteFunc(f.escalated, func(i int64, _ grid.Resources) bool { return trials.Lo <= i && i < trials.Hi })
	f.done.Remove(trials.Lo, trials.Hi)
	f.assigned.Add(trials.Lo, trials.Hi)
	f.retries.addRange(trials, max(attempts+1, 2), f.sweep.Task.Resources)
}

// leaseModeAfter returns how the next attempt of a trial with these failures is leased.
func leaseModeAfter(failed map[grid.Class]int) leaseMode {
	if failed[grid.ClassCrash] > 0 {
		return modeAnnounced
	}
	return modeRange
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

// waiters are channels of callers that wait for something.
type waiters []chan struct{}

// release closes the channels.
func (w *waiters) release() {
	for _, c := range *w {
		close(c)
	}
	*w = nil
}

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

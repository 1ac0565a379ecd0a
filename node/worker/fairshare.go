package worker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
)

const (
	// defaultQuantum is how much more time of the whole machine than another a lane may have before
	// the other goes first. To change over from small trials to a big one leaves room unused while
	// the small ones end, so it must not happen for every trial. Where trials need more than half
	// of the devices, the quantum is quantumRuns times the mean run of what waits, up to
	// maxQuantum.
	defaultQuantum = 2 * time.Second
	quantumRuns    = 4
	maxQuantum     = 10 * time.Minute

	// overdueTime and overdueQuanta bound how long a lane holds room and waits before it goes
	// first: the longer of the two.
	overdueTime   = time.Minute
	overdueQuanta = 4
)

// machineSize is what a machine has for trials.
type machineSize struct {
	cpus    grid.Milli
	memory  int64
	devices int
	bytes   int64 // of all devices
}

// weight is the share of the machine that one trial takes: of the resource that it needs most of.
func (s *machineSize) weight(r *grid.Resources) float64 {
	part := func(a, b float64) float64 { return a / max(b, 1) }
	w := max(part(float64(r.CPUs), float64(s.cpus)), part(float64(r.Memory), float64(s.memory)))
	if n := r.WholeGPUs(); n > 0 {
		return max(w, part(float64(n), float64(s.devices)))
	}
	return max(w, part(r.GPUs.Float(), float64(s.devices)), part(float64(r.GPUMemory), float64(s.bytes)))
}

// fairShare decides which lane is served next, so that none waits for ever:
//
//   - More urgent lanes go first. Of equal ones the lane goes first that has used the least of this
//     machine.
//   - A lane whose trials wait and do not fit holds room for one of them: see allocator.HoldFor. So
//     a stream of small trials can't keep a big one out, and what a big one can't use is not left
//     unused.
//   - A lane that has held room for too long goes first within its priority until a trial of it has
//     started; of several, the one that has waited longest. A lane that runs one small trial at a
//     time uses its quantum up so slowly that it would stay ahead for hours.
//   - Lanes of which this node may run no trial, such as those that need GPUs on a node without
//     any, don't affect the others.
type fairShare struct {
	quantum time.Duration

	mu    sync.Mutex
	total machineSize
	lanes map[grid.Lane]*laneShare
}

// laneShare is what one lane has used.
type laneShare struct {
	lane         lane
	running      int
	used         time.Duration // of the whole machine's time, as of usedAt
	usedAt       time.Time
	mean         time.Duration // how long its leases ran lately; 0 before the first end
	waiting      bool          // leases may be in the queue
	ineligible   bool          // this node may run none of its trials
	lastArrival  time.Time     // when the last lease came
	holdingSince time.Time     // since when it has held room; zero while it holds none
	refusal      grid.Refusal  // why it got nothing the last time
}

// queueVisibility is longer than the queue takes to show a lease that has come: until then, finding
// none means nothing.
const queueVisibility = 200 * time.Millisecond

func newFairShare(total machineSize) *fairShare {
	return &fairShare{total: total, quantum: defaultQuantum, lanes: map[grid.Lane]*laneShare{}}
}

// resize changes what there is to share.
func (f *fairShare) resize(total machineSize) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total = total
}

// order sorts the lanes and records which of them this node may serve. It forgets other lanes that
// run nothing.
func (f *fairShare) order(all []lane, now time.Time) []lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range all {
		h := f.laneLocked(l, now)
		was := h.ineligible
		if h.ineligible = l.slots < 1; h.ineligible {
			h.holdingSince, h.refusal = time.Time{}, l.refusal
		} else if was {
			f.catchUpLocked(h, now)
		}
	}
	turn := f.quantumLocked(all)
	type rank struct {
		turns int64
		kept  int64 // nanoseconds since 1970; later than all others for a lane that is not overdue
	}
	ranks := map[grid.Lane]rank{}
	for _, l := range all {
		h := f.lanes[l.name]
		r := rank{turns: int64(h.used / turn), kept: 1<<63 - 1}
		if !h.holdingSince.IsZero() && now.Sub(h.holdingSince) > max(overdueTime, overdueQuanta*turn) {
			r.kept = h.holdingSince.UnixNano()
		}
		ranks[l.name] = r
	}
	for name, h := range f.lanes {
		if _, ok := ranks[name]; !ok && h.running == 0 {
			delete(f.lanes, name)
		}
	}
	slices.SortFunc(all, func(a, b lane) int {
		x, y := ranks[a.name], ranks[b.name]
		return cmp.Or(
			cmp.Compare(b.priority, a.priority), cmp.Compare(x.kept, y.kept), cmp.Compare(x.turns, y.turns),
			cmp.Compare(a.name, b.name),
		)
	})
	return all
}

// quantumLocked returns the quantum that applies among these lanes.
func (f *fairShare) quantumLocked(all []lane) time.Duration {
	big, n, sum := false, 0, time.Duration(0)
	for _, l := range all {
		h := f.lanes[l.name]
		if !h.waiting || h.ineligible {
			continue
		}
		big = big || 2*l.resources.WholeGPUs() > f.total.devices
		if h.mean > 0 {
			n, sum = n+1, sum+h.mean
		}
	}
	if !big || n == 0 {
		return f.quantum
	}
	return max(f.quantum, min(quantumRuns*sum/time.Duration(n), maxQuantum))
}

// laneLocked returns the share of a lane as of now. A lane that was not known may have leases
// waiting.
func (f *fairShare) laneLocked(l lane, now time.Time) *laneShare {
	h := f.lanes[l.name]
	if h == nil {
		h = &laneShare{lane: l, usedAt: now, waiting: true}
		f.lanes[l.name] = h
		f.catchUpLocked(h, now)
	}
	f.accrueLocked(h, now)
	h.lane = l
	return h
}

func (f *fairShare) accrueLocked(h *laneShare, now time.Time) {
	h.used += time.Duration(float64(now.Sub(h.usedAt)) * float64(h.running) * f.total.weight(&h.lane.resources))
	h.usedAt = now
}

// catchUpLocked starts a lane that had nothing to do at the level of the least served of the
// others: a lane that did not want the machine has saved nothing up.
func (f *fairShare) catchUpLocked(h *laneShare, now time.Time) {
	least := time.Duration(-1)
	for _, o := range f.lanes {
		if o == h || o.isIdle() || o.lane.priority != h.lane.priority {
			continue
		}
		f.accrueLocked(o, now)
		if least < 0 || o.used < least {
			least = o.used
		}
	}
	h.used = max(h.used, least)
}

func (h *laneShare) isIdle() bool { return h.running == 0 && (!h.waiting || h.ineligible) }

// leaseArrived records that a lease has come.
func (f *fairShare) leaseArrived(name grid.Lane, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.lanes[name]
	if h == nil {
		return // order assumes that a new lane waits
	}
	if h.isIdle() {
		f.catchUpLocked(h, now)
	}
	h.waiting, h.lastArrival = true, now
}

// queueEmpty records that the queue, polled at that time, had no lease of the lane.
func (f *fairShare) queueEmpty(l lane, asked time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.lanes[l.name]; h != nil && asked.Sub(h.lastArrival) > queueVisibility {
		h.waiting, h.holdingSince, h.refusal = false, time.Time{}, grid.Refusal{}
	}
}

// hold records that the lane holds room from now on if it wants any, and returns whether it does
// and for how long it has.
func (f *fairShare) hold(l lane, now time.Time) (waiting bool, held time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.lanes[l.name]
	if h == nil || !h.waiting {
		return false, 0
	}
	if h.holdingSince.IsZero() {
		h.holdingSince = now
	}
	return true, now.Sub(h.holdingSince)
}

// setRefusal records why a trial of the lane got nothing.
func (f *fairShare) setRefusal(l lane, why grid.Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.lanes[l.name]; h != nil {
		h.refusal = why
	}
}

// refusals returns up to limit lanes that want room and got none, with the reasons: the most urgent
// ones.
func (f *fairShare) refusals(limit int) map[grid.Lane]grid.Refusal {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*laneShare
	for _, h := range f.lanes {
		if h.waiting && h.refusal.Code != "" {
			all = append(all, h)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *laneShare) int {
		return cmp.Or(cmp.Compare(b.lane.priority, a.lane.priority), cmp.Compare(a.lane.name, b.lane.name))
	})
	waits := map[grid.Lane]grid.Refusal{}
	for _, h := range all[:min(len(all), limit)] {
		waits[h.lane.name] = h.refusal
	}
	return waits
}

// runStarted accounts for one more running trial of the lane from now on.
func (f *fairShare) runStarted(l lane, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.laneLocked(l, now)
	h.running++
	h.holdingSince, h.refusal = time.Time{}, grid.Refusal{}
}

// runEnded accounts for the end of a run that began at that time.
func (f *fairShare) runEnded(l lane, began, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.laneLocked(l, now)
	h.running--
	if took := now.Sub(began); h.mean == 0 {
		h.mean = took
	} else {
		h.mean += (took - h.mean) / 4
	}
}

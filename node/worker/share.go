package worker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

// turnTime is how much time of the whole machine a lane may have more than another before that one goes first. To change over
// from small trials to a big one leaves room unused while the small ones end, so it must not happen for every trial.
const turnTime = 2 * time.Second

// shares decides which lane is served next, so that none waits for ever:
//
//   - More urgent lanes go first. Of equal ones the lane goes first that has used the least of this machine.
//   - A lane whose trials wait and do not fit keeps room for one of them: the lanes behind it are served only as far as that one
//     fits beside them once its own lane's other trials have ended. So a stream of small trials can't keep a big one out, and
//     what a big one can't use is not left unused.
type shares struct {
	total inventory.Machine
	turn  time.Duration

	mu    sync.Mutex
	lanes map[grid.Lane]*share
}

// share is what one lane has had.
type share struct {
	lane    lane
	running int
	used    time.Duration // of the whole machine's time, as of at
	at      time.Time
	waits   bool      // leases may be in the queue
	woken   time.Time // when the last one came
}

// visibleAfter is more than the queue takes to show a lease that has come: until then, finding none says nothing.
const visibleAfter = 200 * time.Millisecond

func newShares(total inventory.Machine) *shares {
	return &shares{total: total, turn: turnTime, lanes: map[grid.Lane]*share{}}
}

// resize changes what there is to share.
func (s *shares) resize(total inventory.Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = total
}

// order sorts the lanes, and forgets others that run nothing.
func (s *shares) order(all []lane, now time.Time) []lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	turns := map[grid.Lane]int64{}
	for _, l := range all {
		turns[l.name] = int64(s.openLocked(l, now).used / s.turn)
	}
	for name, h := range s.lanes {
		if _, ok := turns[name]; !ok && h.running == 0 {
			delete(s.lanes, name)
		}
	}
	slices.SortFunc(all, func(a, b lane) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(turns[a.name], turns[b.name]), cmp.Compare(a.name, b.name))
	})
	return all
}

// openLocked gives the share of a lane as of now. Leases of a lane that was not known may wait.
func (s *shares) openLocked(l lane, now time.Time) *share {
	h := s.lanes[l.name]
	if h == nil {
		h = &share{lane: l, at: now, waits: true}
		s.lanes[l.name] = h
		s.catchUpLocked(h, now)
	}
	s.settleLocked(h, now)
	return h
}

func (s *shares) settleLocked(h *share, now time.Time) {
	h.used += time.Duration(float64(now.Sub(h.at)) * float64(h.running) * s.weight(h.lane.resources))
	h.at = now
}

// weight is the part of the machine that one trial takes: of what it needs most of.
func (s *shares) weight(r grid.Resources) float64 {
	return max(r.CPUs.Float()/s.total.CPUs, float64(r.Memory)/float64(max(s.total.Memory, 1)))
}

// catchUpLocked lets a lane that had nothing to do begin where the least served of the others stands: who did not want the
// machine has saved nothing up.
func (s *shares) catchUpLocked(h *share, now time.Time) {
	least := time.Duration(-1)
	for _, o := range s.lanes {
		if o == h || o.idle() || o.lane.priority != h.lane.priority {
			continue
		}
		s.settleLocked(o, now)
		if least < 0 || o.used < least {
			least = o.used
		}
	}
	h.used = max(h.used, least)
}

func (h *share) idle() bool { return h.running == 0 && !h.waits }

// wake notes that a lease has come.
func (s *shares) wake(name grid.Lane, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.lanes[name]
	if h == nil {
		return // order takes it for one that waits
	}
	if h.idle() {
		s.catchUpLocked(h, now)
	}
	h.waits, h.woken = true, now
}

// foundEmpty notes that the queue, asked at that time, had no lease of the lane.
func (s *shares) foundEmpty(l lane, asked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.lanes[l.name]; h != nil && asked.Sub(h.woken) > visibleAfter {
		h.waits = false
	}
}

// waits reports whether the lane wants room.
func (s *shares) waits(l lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.lanes[l.name]
	return h != nil && h.waits
}

// began and ended account for one trial at a time of the lane.
func (s *shares) began(l lane, now time.Time) { s.count(l, 1, now) }
func (s *shares) ended(l lane, now time.Time) { s.count(l, -1, now) }

func (s *shares) count(l lane, n int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openLocked(l, now).running += n
}

// admits reports whether one more trial of the lane leaves the room that the lanes before it keep.
func (s *shares) admits(l lane, kept []lane) bool {
	if len(kept) == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cpus, memory := l.resources.CPUs, l.resources.Memory
	for _, k := range kept {
		cpus += k.resources.CPUs
		memory += k.resources.Memory
	}
	for name, h := range s.lanes {
		if !slices.ContainsFunc(kept, func(k lane) bool { return k.name == name }) {
			cpus += grid.Milli(h.running) * h.lane.resources.CPUs
			memory += int64(h.running) * h.lane.resources.Memory
		}
	}
	return cpus <= grid.MilliOf(s.total.CPUs) && memory <= s.total.Memory
}

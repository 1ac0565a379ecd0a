package master

import (
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
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

// leaseSet holds the leases of a sweep, in the queue and at nodes.
type leaseSet struct {
	leases       map[grid.LeaseID]lease
	leasesInLane map[grid.Lane]int // number of leases in each lane
	newestSeq    uint64            // sequence of the newest lease
}

// addLease and removeLease keep the leases and their number in each lane.
func (s *leaseSet) addLease(id grid.LeaseID, l lease) {
	s.removeLease(id)
	s.leases[id] = l
	s.leasesInLane[l.lane]++
}

func (s *leaseSet) removeLease(id grid.LeaseID) {
	l, ok := s.leases[id]
	if !ok {
		return
	}
	delete(s.leases, id)
	if s.leasesInLane[l.lane]--; s.leasesInLane[l.lane] == 0 {
		delete(s.leasesInLane, l.lane)
	}
}

// leasesOver returns the other leases that hold trial i.
func (s *leaseSet) leasesOver(i int64, but grid.LeaseID) []grid.LeaseID {
	var all []grid.LeaseID
	for id, l := range s.leases {
		if id != but && l.lo <= i && i < l.hi {
			all = append(all, id)
		}
	}
	return all
}

// leasedAfter returns the trials that are leased for attempts after this one. What a lease of an
// earlier attempt still reports about a trial that has failed since does not count.
func (s *leaseSet) leasedAfter(attempt int) *ranges.Set {
	later := &ranges.Set{}
	for _, l := range s.leases {
		if l.attempt > attempt {
			later.Add(l.lo, l.hi)
		}
	}
	return later
}

// hasLaterLease reports whether a lease for a later attempt than the failed one exists already.
func (s *leaseSet) hasLaterLease(i int64, attempts int) bool {
	for _, l := range s.leases {
		if l.lo <= i && i < l.hi && l.attempt > attempts {
			return true
		}
	}
	return false
}

package grid

import "time"

// Lane names a lease queue. Leases for trials with the same resources, image and priority share one, so a worker that pulls from a
// lane knows that what comes fits and that nothing more urgent waits in it. LaneOf gives the name.
type Lane string

// Lane gives the lane of the sweep's first attempts.
func (s *Sweep) Lane() Lane { return LaneOf(s.Priority, s.Task.Resources.Initial(), s.Task.Image) }

// LeaseTarget is how much running time one lease is to cover when trials are short.
const LeaseTarget = 500 * time.Millisecond

// maxLease bounds a lease, so that a first wrong guess of a trial's length costs little.
const maxLease = 1 << 16

// LeaseSize says how many trials the next lease covers: about LeaseTarget of them, at most eight times the previous lease,
// and near the end of a sweep small enough that all slots end together. It is one until a trial has ended: they may take hours, and
// no other node can help with what is in a lease.
func LeaseSize(average time.Duration, previous, left int64, slots int) int64 {
	if average == 0 {
		return 1
	}
	size := min(max(previous, 1)*8, maxLease, int64(LeaseTarget/average))
	share := left / int64(2*max(slots, 1))
	return max(1, min(size, share))
}

package grid

import "time"

// Lane names a lease queue. Leases for trials with the same resources, image and priority share a
// lane, so a worker that pulls from it knows that the trials fit and that the lane holds nothing
// more urgent. LaneOf returns the name.
type Lane string

// Lane returns the lane of first attempts of the sweep.
func (s *Sweep) Lane() Lane { return LaneOf(s.Priority, s.Task.Resources.Initial(), s.Task.Image) }

// LeaseTarget is the intended run time of one lease of short trials.
const LeaseTarget = 500 * time.Millisecond

package grid

import "time"

// Lane names a lease queue. Leases for trials with the same resources, image and priority share one, so a worker that pulls
// from a lane knows that what comes fits and that nothing more urgent waits in it. LaneOf returns the name.
type Lane string

// Lane returns the lane of the sweep's first attempts.
func (s *Sweep) Lane() Lane { return LaneOf(s.Priority, s.Task.Resources.Initial(), s.Task.Image) }

// LeaseTarget is how long one lease of short trials should take to run.
const LeaseTarget = 500 * time.Millisecond

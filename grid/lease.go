package grid

import "time"

// LeaseID identifies a lease. It is never reused, unlike a sequence number of the queue, the newest
// of which can be lost in a crash.
type LeaseID string

// LeaseTarget is the intended run time of one lease of short trials: the master chooses the size of
// leases by it (node/master/leasesize.go), and a worker gives back what has not begun after eight
// times as long (unstartedAge in node/worker/dispatch.go). docs/ARCHITECTURE.md has both figures.
const LeaseTarget = 500 * time.Millisecond

package master

import (
	"time"

	"mlfnode/grid"
)

// maxLease bounds a lease, so that a wrong first guess of how long trials run costs little.
const maxLease = 1 << 16

// leaseSize returns how many trials the next lease covers: as many as run for about
// grid.LeaseTarget, but at most eight times the previous lease, and near the end of a sweep so few
// that all slots finish together. It is 1 until a trial has ended: trials may take hours, and no
// other node can help with those of a lease.
func leaseSize(average time.Duration, previous, left int64, slots int) int64 {
	if average == 0 {
		return 1
	}
	size := min(max(previous, 1)*8, maxLease, int64(grid.LeaseTarget/average))
	share := left / int64(2*max(slots, 1))
	return max(1, min(size, share))
}

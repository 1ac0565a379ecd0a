package grid

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Lane names a lease queue. Leases for trials with the same resources, image and priority share a
// lane, so a worker that pulls from it knows that the trials fit and that the lane holds nothing
// more urgent. LaneOf returns the name.
type Lane string

// Lane returns the lane of first attempts of the sweep.
func (s *Sweep) Lane() Lane { return LaneOf(s.Priority, s.Task.Resources.Initial(), s.Task.Image) }

// LaneOf returns the lane of trials with these resources and this image. Trials of one lane have
// the same needs, and different lanes have different names. The name consists of the amounts if
// there are only processors and memory, as it always has; otherwise it ends in a hash of all
// fields.
func LaneOf(priority int, r Resources, image string) Lane {
	if !r.NeedsGPU() && r.GPUModel == "" && image == "" && r.Nodes == "" {
		return Lane(fmt.Sprintf("p%d_c%d_m%d_g0_v0", priority, r.CPUs, r.Memory))
	}
	sum := sha256.Sum256([]byte(r.Key() + "\n" + image))
	return Lane(fmt.Sprintf("p%d_%s", priority, hex.EncodeToString(sum[:8])))
}

package worker

import (
	"fmt"
	"math"

	"mlfnode/grid"
	"mlfnode/node/executor/docker"
)

// wantedImage returns the image in which the trials of a sweep are to run.
func wantedImage(r *grid.Sweep) docker.ImageRequest {
	w := docker.ImageRequest{Reference: r.Task.Image, Pinned: r.Pinned, Policy: docker.PullMissing, Sweep: r.ID}
	if c := r.Task.Container; c != nil && c.Pull != "" {
		w.Policy = docker.Policy(c.Pull)
	}
	return w
}

// imageSlots returns how many attempts of a lane may start as far as the images of its sweeps are
// concerned, and why no more. While an image is pulled, nothing is reserved for its trials. After
// each failed try to get an image, one trial fails with the reason, so that its user learns of it;
// where another node has run trials in the image, this node leaves them to that one.
func (ct *taskContainers) imageSlots(l lane) (int, grid.Refusal) {
	room, why := math.MaxInt, grid.Refusal{}
	for _, r := range l.images {
		if ct.cfg.Containers == nil {
			return 0, grid.Refusal{Code: grid.RefusedEngine, By: "runs no containers: no engine is set up there"}
		}
		want := wantedImage(r)
		s := ct.cfg.Containers.Images.Status(want)
		if s.Image != nil {
			continue
		}
		if isReportable(r, &s) {
			room = min(room, 1)
			continue
		}
		room, why = 0, imageRefusal(r, &s)
	}
	return room, why
}

// isReportable reports whether a trial may end with the failure.
func isReportable(r *grid.Sweep, s *docker.ImageStatus) bool {
	return s.Err != nil && s.Unreported && s.Err.Class == grid.ClassImage && r.Pinned == ""
}

func imageRefusal(r *grid.Sweep, s *docker.ImageStatus) grid.Refusal {
	switch {
	case s.Pulling != nil:
		return grid.Refusal{Code: grid.RefusedImage, By: fmt.Sprintf("pulls %s, %s", r.Task.Image, s.Pulling)}
	case s.Err != nil && s.Err.Class == grid.ClassEngine:
		return grid.Refusal{Code: grid.RefusedEngine, By: s.Err.Reason}
	case s.Err != nil:
		return grid.Refusal{Code: grid.RefusedImage, By: s.Err.Reason}
	}
	return grid.Refusal{Code: grid.RefusedImage, By: "looks for " + r.Task.Image}
}

// imageLookup is what the node has for an attempt whose task names an image: the image, or why it
// is not available.
type imageLookup struct {
	image   *docker.Image
	failure *docker.ImageError
}

// findImage looks up the image of a sweep. It returns false when its trials are to be leased again,
// because the image is not present.
func (ct *taskContainers) findImage(r *grid.Sweep) (imageLookup, bool) {
	if r.Task.Image == "" {
		return imageLookup{}, true
	}
	if ct.cfg.Containers == nil {
		return imageLookup{}, false
	}
	want := wantedImage(r)
	status := ct.cfg.Containers.Images.Status(want)
	switch {
	case status.Image != nil:
		return imageLookup{image: status.Image}, true
	case isReportable(r, &status):
		ct.cfg.Containers.Images.MarkReported(want)
		return imageLookup{failure: status.Err}, true
	}
	return imageLookup{}, false
}

// recheckImage makes the node look for the image of a sweep immediately: its user has changed or
// resumed the sweep.
func (ct *taskContainers) recheckImage(r *grid.Sweep) {
	if r.Task.Image != "" && ct.cfg.Containers != nil {
		ct.cfg.Containers.Images.Invalidate(wantedImage(r))
	}
}

// setupImage returns the image on which a setup step of the sweep depends: another image may have
// other programs at the same paths.
func (ct *taskContainers) setupImage(r *grid.Sweep, img *docker.Image) string {
	switch {
	case img != nil:
		return img.Pin
	case r.Task.Image == "" || ct.cfg.Containers == nil:
		return ""
	}
	if s := ct.cfg.Containers.Images.Status(wantedImage(r)); s.Image != nil {
		return s.Image.Pin
	}
	return r.Task.Image
}

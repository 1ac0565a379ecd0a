package worker

import (
	"fmt"
	"math"

	"mlfnode/grid"
	"mlfnode/node/executor/docker"
)

// wanted is the image that trials of a sweep are to run in.
func wantedImage(r *grid.Sweep) docker.Want {
	w := docker.Want{Reference: r.Task.Image, Pinned: r.Pinned, Policy: docker.PullMissing, Sweep: r.ID}
	if c := r.Task.Container; c != nil && c.Pull != "" {
		w.Policy = docker.Policy(c.Pull)
	}
	return w
}

// imageRoom says how many attempts of a lane may begin as far as the images of its sweeps go, and why no more. While an image is pulled,
// nothing is reserved for its trials. An image that can't be had is told to one trial each time that it was tried, so that its user
// hears of it; where another node has run trials in it, this node leaves them to that one.
func (ct *taskContainers) imageSlots(l lane) (int, grid.Refusal) {
	room, why := math.MaxInt, grid.Refusal{}
	for _, r := range l.images {
		if ct.cfg.Containers == nil {
			return 0, grid.Refusal{Code: grid.RefusedEngine, By: "runs no containers: no engine is set up there"}
		}
		want := wantedImage(r)
		s := ct.cfg.Containers.Images.Look(want)
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

// tellable reports whether a trial may end with the failure.
func isReportable(r *grid.Sweep, s *docker.Status) bool {
	return s.Err != nil && s.Fresh && s.Err.Class == grid.ClassImage && r.Pinned == ""
}

func imageRefusal(r *grid.Sweep, s *docker.Status) grid.Refusal {
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

// foundImage is what the node has for an attempt whose task names an image: the image, or why it can't be had.
type imageLookup struct {
	image   *docker.Image
	failure *docker.ImageError
}

// findImage looks for the image of a sweep. It reports false when its trials are to be leased again, because the image is not here.
func (ct *taskContainers) findImage(r *grid.Sweep) (imageLookup, bool) {
	if r.Task.Image == "" {
		return imageLookup{}, true
	}
	if ct.cfg.Containers == nil {
		return imageLookup{}, false
	}
	want := wantedImage(r)
	status := ct.cfg.Containers.Images.Look(want)
	switch {
	case status.Image != nil:
		return imageLookup{image: status.Image}, true
	case isReportable(r, &status):
		ct.cfg.Containers.Images.Told(want)
		return imageLookup{failure: status.Err}, true
	}
	return imageLookup{}, false
}

// lookAgain has the image of a sweep looked for at once: its user has changed the sweep, or had it go on.
func (ct *taskContainers) recheckImage(r *grid.Sweep) {
	if r.Task.Image != "" && ct.cfg.Containers != nil {
		ct.cfg.Containers.Images.Forget(wantedImage(r))
	}
}

// setupImage is what a setup step of the sweep depends on: another image may have other programs at the same places.
func (ct *taskContainers) setupImage(r *grid.Sweep, img *docker.Image) string {
	switch {
	case img != nil:
		return img.Pin
	case r.Task.Image == "" || ct.cfg.Containers == nil:
		return ""
	}
	if s := ct.cfg.Containers.Images.Look(wantedImage(r)); s.Image != nil {
		return s.Image.Pin
	}
	return r.Task.Image
}

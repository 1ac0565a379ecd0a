package master

import (
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

func TestImagesUsed(t *testing.T) {
	pin := "reg.lab/a@sha256:" + strings.Repeat("0a", 32)
	id := "sha256:" + strings.Repeat("0b", 32)
	ended := func(image string, c grid.Class) grid.Event {
		return grid.Event{Kind: grid.Finished, Image: image, Result: &grid.Result{Class: c}}
	}
	for name, tt := range map[string]struct {
		events []grid.Event
		want   string
	}{
		"process": {[]grid.Event{ended("", grid.ClassNone)}, ""},
		"success": {[]grid.Event{ended(pin, grid.ClassNone)}, pin},
		"by ID":   {[]grid.Event{ended(id, grid.ClassNone)}, id},
		"running": {[]grid.Event{{Kind: grid.Started, Image: pin}}, pin},
		"failure": {[]grid.Event{ended(pin, grid.ClassExit)}, ""},
		"first": {[]grid.Event{ended(id, grid.ClassExit), ended(pin, grid.ClassNone),
			ended(id, grid.ClassNone)}, pin},
		"without digest":  {[]grid.Event{ended("reg.lab/a:1", grid.ClassNone)}, ""},
		"no name at all":  {[]grid.Event{ended("--privileged sha256:", grid.ClassNone)}, ""},
		"without result":  {[]grid.Event{{Kind: grid.Finished, Image: pin}}, ""},
		"of another kind": {[]grid.Event{{Kind: grid.Metrics, Image: pin}}, ""},
	} {
		used := imagesUsed([]jetstream.StoredBatch{{Batch: &grid.Batch{Sweep: "a-1", Events: tt.events}}})
		if used["a-1"] != tt.want {
			t.Errorf("%s: got %q, want %q", name, used["a-1"], tt.want)
		}
	}
}

// TestMissingImagePausesItsSweep runs an image that does not exist, on a machine that stands alone,
// where no other node could have it.
func TestMissingImagePausesItsSweep(t *testing.T) {
	c := startMaster(t, 4)
	id := c.submit(4, func(s *api.Submit) { s.Task.Image = "reg.lab/x:1" })
	c.workers.finishLease(c.workers.waitAndTakeLease(id), grid.ClassImage, time.Millisecond)
	c.waitFor("the sweep is paused", func(*scheduler) bool {
		r, _ := c.Sweep(id)
		return r.Sweep.State == grid.SweepPaused
	})
	r, _ := c.Sweep(id)
	if why := r.Sweep.Problem; !strings.Contains(why, "its image could not be had (on n)") ||
		!strings.Contains(why, "mlfnode resume "+string(id)) {
		t.Errorf("got the reason %q", why)
	}
	if n := c.counts(id); n.Failed != 0 {
		t.Errorf("%d trials have failed for good", n.Failed)
	}
}

// TestFirstImageIsPinned checks that the image of the first trial is used for all, whatever later
// ones report.
func TestFirstImageIsPinned(t *testing.T) {
	c := startMaster(t, 4)
	id := c.submit(4, func(s *api.Submit) { s.Task.Image = "reg.lab/x:1" })
	pins := []string{"reg.lab/x@sha256:" + strings.Repeat("0a", 32), "reg.lab/x@sha256:" + strings.Repeat("0b", 32)}
	for i, pin := range pins {
		h := c.workers.waitAndTakeLease(id)
		now := time.Now().UnixMicro()
		c.workers.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{{
			Kind: grid.Finished, Index: h.Lo, Attempt: h.Attempt, Run: "n.1.image" + pin[len(pin)-2:], Time: now,
			Image: pin, Result: &grid.Result{Started: now},
		}}})
		c.waitFor("the image is pinned", func(*scheduler) bool { r, _ := c.Sweep(id); return r.Sweep.Pinned != "" })
		if r, _ := c.Sweep(id); r.Sweep.Pinned != pins[0] {
			t.Errorf("after %d trials: got %q, want the first image", i+1, r.Sweep.Pinned)
		}
	}
}

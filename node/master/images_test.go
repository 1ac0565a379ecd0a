package master

import (
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/jetstream"
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
		"process":         {[]grid.Event{ended("", grid.ClassNone)}, ""},
		"success":         {[]grid.Event{ended(pin, grid.ClassNone)}, pin},
		"by ID":           {[]grid.Event{ended(id, grid.ClassNone)}, id},
		"running":         {[]grid.Event{{Kind: grid.Started, Image: pin}}, pin},
		"failure":         {[]grid.Event{ended(pin, grid.ClassExit)}, ""},
		"first":           {[]grid.Event{ended(id, grid.ClassExit), ended(pin, grid.ClassNone), ended(id, grid.ClassNone)}, pin},
		"without digest":  {[]grid.Event{ended("reg.lab/a:1", grid.ClassNone)}, ""},
		"no name at all":  {[]grid.Event{ended("--privileged sha256:", grid.ClassNone)}, ""},
		"without result":  {[]grid.Event{{Kind: grid.Finished, Image: pin}}, ""},
		"of another kind": {[]grid.Event{{Kind: grid.Metrics, Image: pin}}, ""},
	} {
		used := imagesUsed([]jetstream.Stored{{Batch: &grid.Batch{Sweep: "a-1", Events: tt.events}}})
		if used["a-1"] != tt.want {
			t.Errorf("%s: got %q, want %q", name, used["a-1"], tt.want)
		}
	}
}

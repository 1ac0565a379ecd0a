package docker

import (
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor/docker/dockertest"
)

// TestPullErrorsOfPodmanAreFound checks that failures are found in Podman's report on a pull, since
// Podman never reports them by the status of the answer.
func TestPullErrorsOfPodmanAreFound(t *testing.T) {
	r := dockertest.NewRegistry(t)
	e, err := dial(SharedPodman.Engine(t).Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	digest := r.PushText("lab/train", "1", "first", 1<<20)
	m := e.images(t)
	s := await(t, m, ImageRequest{Reference: r.Host() + "/lab/train:1"})
	if s.Err != nil || s.Image.Pin != r.Host()+"/lab/train@"+digest ||
		strings.Join(s.Image.Env, " ") != "FROM_IMAGE=first" {
		t.Fatalf("got %+v %v, want the image by its digest", s.Image, s.Err)
	}
	r.PushText("lab/train", "1", "second", 1000)
	if s := await(t, m, ImageRequest{Reference: r.Host() + "/lab/train:1", Policy: PullAlways,
		Sweep: "a-2"}); s.Err != nil || s.Image.Pin == r.Host()+"/lab/train@"+digest {
		t.Errorf("got %+v %v, want the new image", s.Image, s.Err)
	}
	if s := await(t, m, ImageRequest{Reference: r.Host() + "/lab/train:1",
		Pinned: r.Host() + "/lab/train@" + digest}); s.Err != nil || s.Image.Env[0] != "FROM_IMAGE=first" {
		t.Errorf("got %+v %v, want the pinned image", s.Image, s.Err)
	}
	if s := await(t, m, ImageRequest{Reference: r.Host() + "/lab/none:1"}); s.Err == nil ||
		s.Err.Class != grid.ClassImage {
		t.Errorf("got %+v, want class image for a name that is not there", s.Err)
	}
	r.Set(func() { r.Status = 429 })
	if s := await(t, m, ImageRequest{Reference: r.Host() + "/lab/train:3"}); s.Err == nil ||
		s.Err.Class != grid.ClassRegistry {
		t.Errorf("got %+v, want class registry for a rate limit", s.Err)
	}
	r.Set(func() { r.Status, r.Stall = 0, make(chan struct{}) })
	r.PushText("lab/stall", "1", "x", 1<<20)
	if s := await(t, m, ImageRequest{Reference: r.Host() + "/lab/stall:1"}); s.Err == nil ||
		s.Err.Class != grid.ClassRegistry || !strings.Contains(s.Err.Reason, "no progress") {
		t.Errorf("got %+v, want class registry for a pull that stalls", s.Err)
	}
}

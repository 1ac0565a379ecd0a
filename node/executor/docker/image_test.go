package docker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"mlfnode/grid"
	"mlfnode/node/executor/docker/dockertest"
)

// testEngine is a client of an engine that belongs to the tests.
type testEngine struct{ *client.Client }

// dial returns a client of the engine that listens there.
func dial(host string) (*testEngine, error) {
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	return &testEngine{c}, err
}

func TestMain(m *testing.M) {
	code := m.Run()
	Shared.End()
	SharedPodman.End()
	os.Exit(code)
}

func engineOf(t *testing.T) *testEngine {
	t.Helper()
	e, err := dial(Shared.Engine(t).Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// images returns Images that pull into the engine, with short waits.
func (e *testEngine) images(t *testing.T) *Images {
	m := newImages(func(context.Context) (imageAPI, error) { return e.Client, nil }, func() {})
	m.idle, m.backoff = 2*time.Second, 50*time.Millisecond
	t.Cleanup(m.Close)
	return m
}

// await polls the status of the image until there is an answer.
func await(t *testing.T, m *Images, w ImageRequest) ImageStatus {
	t.Helper()
	return awaitStatus(t, m, w, time.Minute, func(s ImageStatus) bool { return s.Image != nil || s.Err != nil })
}

// awaitStatus polls the status of the image until it is enough, for at most the limit.
func awaitStatus(
	t *testing.T, m *Images, w ImageRequest, limit time.Duration, enough func(ImageStatus) bool,
) ImageStatus {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		if s := m.Status(w); enough(s) {
			return s
		}
	}
	t.Fatalf("got no answer in %v", limit)
	return ImageStatus{}
}

func TestPullIsSharedAndPinned(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	digest := r.PushText("lab/train", "1", "first", 1<<20)
	m := e.images(t)
	w := ImageRequest{Reference: r.Host() + "/lab/train:1"}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if s := await(t, m, w); s.Err != nil || s.Image.Pin != r.Host()+"/lab/train@"+digest {
				t.Errorf("got %+v, want the digest %s", s, digest)
			}
		})
	}
	all.Wait()
	if n := r.Count("/manifests/"); n > 2 { // HEAD and GET
		t.Errorf("got %d requests for the manifest, want those of one pull", n)
	}
	img := m.Status(w).Image
	if fmt.Sprint(img.Env, img.Entrypoint, img.Command) != "[FROM_IMAGE=first] [/entry] [/cmd]" {
		t.Errorf("got %+v, want what the image says", img)
	}
	before := r.Count("")
	if s := await(t, e.images(t), w); s.Err != nil || r.Count("") != before {
		t.Errorf("got %+v and %d requests, want the image that is here without any", s, r.Count("")-before)
	}
}

// TestPinnedImageSurvivesAMovedTag checks that a tag that moves between two nodes of a sweep does
// not give them different images.
func TestPinnedImageSurvivesAMovedTag(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	first := r.PushText("lab/moved", "1", "old", 1000)
	ref := r.Host() + "/lab/moved:1"
	pin := await(t, e.images(t), ImageRequest{Reference: ref}).Image.Pin
	r.PushText("lab/moved", "1", "new", 1000)
	removeImages(t, e, ref)

	m := e.images(t)
	s := await(t, m, ImageRequest{Reference: ref, Pinned: pin})
	if s.Err != nil || s.Image.Pin != r.Host()+"/lab/moved@"+first || s.Image.Env[0] != "FROM_IMAGE=old" {
		t.Errorf("got %+v %v, want the image that was pinned", s.Image, s.Err)
	}
	if s := await(t, m, ImageRequest{Reference: ref}); s.Err != nil || s.Image.Env[0] != "FROM_IMAGE=new" {
		t.Errorf("got %+v %v, want the new image where nothing is pinned", s.Image, s.Err)
	}
}

func TestAlwaysAsksTheRegistry(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	r.PushText("lab/always", "1", "old", 1000)
	m := e.images(t)
	w := ImageRequest{Reference: r.Host() + "/lab/always:1", Policy: PullAlways, Sweep: "a-1"}
	if s := await(t, m, w); s.Err != nil || s.Image.Env[0] != "FROM_IMAGE=old" {
		t.Fatalf("got %+v %v, want the old image", s.Image, s.Err)
	}
	r.PushText("lab/always", "1", "new", 1000)
	if s := await(t, m, w); s.Err != nil || s.Image.Env[0] != "FROM_IMAGE=old" {
		t.Errorf("got %+v %v, want one image for one sweep", s.Image, s.Err)
	}
	w.Sweep = "a-2"
	if s := await(t, m, w); s.Err != nil || s.Image.Env[0] != "FROM_IMAGE=new" {
		t.Errorf("got %+v %v, want the new image for the next sweep", s.Image, s.Err)
	}
}

func TestNeverPulls(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	r.PushText("lab/never", "1", "x", 1000)
	s := await(t, e.images(t), ImageRequest{Reference: r.Host() + "/lab/never:1", Policy: PullNever})
	if s.Err == nil || s.Err.Class != grid.ClassImage || r.Count("") != 0 {
		t.Errorf("got %+v after %d requests, want class image after none", s, r.Count(""))
	}
}

// TestImageWithoutRegistryIsPinnedByID imports an image, which has no digest by which other nodes
// could pull it.
func TestImageWithoutRegistryIsPinnedByID(t *testing.T) {
	e := engineOf(t)
	from := filepath.Join(t.TempDir(), "root.tar")
	if out, err := exec.Command("tar", "-cf", from, "-C", t.TempDir(), ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	importTar(t, e, from, "built-here:1")
	m := e.images(t)
	s := await(t, m, ImageRequest{Reference: "built-here:1"})
	if s.Err != nil || !strings.HasPrefix(s.Image.Pin, "sha256:") || IsDigestPin(s.Image.Pin) {
		t.Fatalf("got %+v, want it pinned by its ID", s)
	}
	if s := await(t, m, ImageRequest{Reference: "built-here:1", Pinned: s.Image.Pin}); s.Err != nil {
		t.Errorf("got %v, want it found by its ID", s.Err)
	}
	other := "sha256:" + strings.Repeat("0", 64)
	if s := await(t, m, ImageRequest{Reference: "built-here:1", Pinned: other}); s.Err == nil ||
		s.Err.Class != grid.ClassImage || !strings.Contains(s.Err.Reason, "docker save") {
		t.Errorf("got %+v, want class image and how to copy it", s)
	}
}

func TestPullFailuresHaveTheirClass(t *testing.T) {
	e := engineOf(t)
	tests := map[string]struct {
		damage func(*dockertest.Registry)
		ref    string
		want   grid.Class
		words  string
	}{
		"no such tag":     {func(*dockertest.Registry) {}, "lab/x:2", grid.ClassImage, ""},
		"no such name":    {func(*dockertest.Registry) {}, "lab/other:1", grid.ClassImage, ""},
		"not a reference": {func(*dockertest.Registry) {}, "lab/X Y", grid.ClassImage, ""},
		"no access": {func(r *dockertest.Registry) { r.User, r.Password = "ann", "secret" }, "lab/x:1",
			grid.ClassImage, ""},
		"rate limit": {func(r *dockertest.Registry) { r.Status = http.StatusTooManyRequests }, "lab/x:1",
			grid.ClassRegistry, "rate limit"},
		"server error": {func(r *dockertest.Registry) { r.Status = http.StatusBadGateway }, "lab/x:1",
			grid.ClassRegistry, ""},
		"registry away": {func(r *dockertest.Registry) { r.Listener.Close() }, "lab/x:1", grid.ClassRegistry, ""},
		"stalls": {func(r *dockertest.Registry) { r.Stall = make(chan struct{}) }, "lab/x:1", grid.ClassRegistry,
			"no progress"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dockertest.NewRegistry(t)
			r.PushText("lab/x", "1", name, 1<<20)
			r.Set(func() { tt.damage(r) })
			s := await(t, e.images(t), ImageRequest{Reference: r.Host() + "/" + tt.ref})
			if s.Err == nil || s.Err.Class != tt.want || !strings.Contains(s.Err.Reason, tt.words) {
				t.Errorf("got %+v, want class %s and %q", s.Err, tt.want, tt.words)
			}
			if !s.Unreported {
				t.Error("got a failure that is not fresh, want the first to hear of it to be told so")
			}
		})
	}
}

// TestFailedPullIsRetried checks that a registry that comes back is asked again.
func TestFailedPullIsRetried(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	r.PushText("lab/again", "1", "x", 1000)
	r.Set(func() { r.Status = http.StatusServiceUnavailable })
	m := e.images(t)
	w := ImageRequest{Reference: r.Host() + "/lab/again:1"}
	if s := await(t, m, w); s.Err == nil {
		t.Fatalf("got %+v, want a failure", s)
	}
	r.Set(func() { r.Status = 0 })
	awaitStatus(t, m, w, 30*time.Second, func(s ImageStatus) bool { return s.Image != nil })
}

// TestSlowPullContinuesAndReportsProgress checks that a slow pull that makes progress continues for
// longer than any pause may last.
func TestSlowPullContinuesAndReportsProgress(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	r.PushText("lab/slow", "1", "x", 4<<20)
	r.Set(func() { r.Slow = 700 * time.Millisecond })
	m := e.images(t)
	w := ImageRequest{Reference: r.Host() + "/lab/slow:1"}
	var seen Progress
	awaitStatus(t, m, w, time.Minute, func(s ImageStatus) bool {
		if s.Err != nil {
			t.Fatalf("got %+v, want the image", s)
		}
		if s.Pulling != nil && s.Pulling.Done > 0 {
			if s.Pulling.Done < seen.Done || s.Pulling.Done > s.Pulling.Total {
				t.Errorf("got %+v after %+v, want progress to grow up to its total", s.Pulling, seen)
			}
			seen = *s.Pulling
		}
		return s.Image != nil
	})
	if seen.Total < 4<<20 || seen.Done == 0 {
		t.Errorf("got progress %+v, want it told in bytes", seen)
	}
	if text := seen.String(); !strings.Contains(text, "% of 4.") {
		t.Errorf("got %q, want the percentage and the size", text)
	}
}

// TestStalledPullFails cuts off a pull. The engine itself retries what was cut off, with long
// pauses; its announcements of the retries are not progress.
func TestStalledPullFails(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	r.PushText("lab/cut", "1", "x", 1<<20)
	r.Set(func() { r.Cut = true })
	s := await(t, e.images(t), ImageRequest{Reference: r.Host() + "/lab/cut:1"})
	if s.Err == nil || s.Err.Class != grid.ClassRegistry {
		t.Errorf("got %+v, want class registry", s)
	}
}

// TestBrokenReportIsAFailure checks that the engine's death in the middle of a pull is not mistaken
// for the end of the pull.
func TestBrokenReportIsAFailure(t *testing.T) {
	m := newImages(nil, func() {})
	for _, report := range []string{`{"status":"Pulling"}{"stat`, `{"error":"no space left on device"}`, `nonsense`} {
		if err := m.followReport(strings.NewReader(report), &trackedImage{progress: &Progress{}}); err == nil {
			t.Errorf("got no error for the report %q", report)
		}
	}
}

func TestCredentialsReachTheRegistry(t *testing.T) {
	e, r := engineOf(t), dockertest.NewRegistry(t)
	r.PushText("lab/private", "1", "x", 1000)
	r.Set(func() { r.User, r.Password = "ann", "s3cret:with colon" })
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	m := e.images(t)
	w := ImageRequest{Reference: r.Host() + "/lab/private:1"}
	if s := await(t, m, w); s.Err == nil || s.Err.Class != grid.ClassImage {
		t.Fatalf("got %+v, want class image without credentials", s)
	}
	writeFile(t, filepath.Join(home, "config.json"),
		fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host(),
			base64.StdEncoding.EncodeToString([]byte("ann:s3cret:with colon"))))
	awaitStatus(t, m, w, 30*time.Second, func(s ImageStatus) bool { return s.Image != nil })
}

func removeImages(t *testing.T, e *testEngine, ref string) {
	t.Helper()
	img, err := e.ImageInspect(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ImageRemove(context.Background(), img.ID,
		image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

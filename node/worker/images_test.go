package worker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
)

// fakeImages reports the status that the test has set for each image.
type fakeImages struct {
	mu     sync.Mutex
	status map[string]docker.ImageStatus // by reference, or pin
	looked int
	told   int
}

func (f *fakeImages) set(target string, s docker.ImageStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.status == nil {
		f.status = map[string]docker.ImageStatus{}
	}
	f.status[target] = s
}

func (f *fakeImages) Status(w docker.ImageRequest) docker.ImageStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	if w.Pinned != "" {
		return f.status[w.Pinned]
	}
	return f.status[w.Reference]
}

func (f *fakeImages) MarkReported(w docker.ImageRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told++
	s := f.status[w.Reference]
	s.Unreported = false
	f.status[w.Reference] = s
}

func (f *fakeImages) Invalidate(docker.ImageRequest) {}

// containers makes the harness's worker run containers.
func containers(s *harness) *fakeImages {
	f := &fakeImages{}
	s.cfg.Containers = &Containers{Images: f, Network: "host"}
	return f
}

func inImage(ref string) func(*grid.Sweep) {
	return func(r *grid.Sweep) { r.Task.Image = ref }
}

const pinA = "reg.lab/a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// TestPullHoldsNothing checks that while an image is being pulled, its trials wait in the queue and
// hold nothing: others have the whole machine.
func TestPullHoldsNothing(t *testing.T) {
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome { return succeeded() })
	images := containers(s)
	images.set("a", docker.ImageStatus{Pulling: &docker.Progress{Done: 1, Total: 2, Last: time.Now()}})
	s.run()
	waiting := s.sweep("a-1", 1, 4, inImage("a"))
	s.lease(waiting, 0, 1)
	other := s.sweep("b-1", 3, 4, nil)
	s.lease(other, 0, 3)
	s.finished("b-1", 3)
	images.set("a", docker.ImageStatus{Image: &docker.Image{Pin: pinA}})
	s.dispatcher.wake.Set()
	if e := s.finished("a-1", 1)[0]; e.Result.Class != grid.ClassNone || e.Image != pinA {
		t.Errorf("got %+v, want success in %s", e, pinA)
	}
}

// TestImageFailureIsToldOnce checks that a failure ends one trial, and that then the lease waits
// until the image has been tried again.
func TestImageFailureIsToldOnce(t *testing.T) {
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome {
		t.Error("a trial without its image ran")
		return succeeded()
	})
	images := containers(s)
	failure := docker.ImageStatus{Err: &docker.ImageError{Class: grid.ClassImage, Reason: "no such image"},
		Unreported: true}
	images.set("a", failure)
	s.run()
	r := s.sweep("a-1", 20, 1, inImage("a"))
	for i := range int64(20) {
		s.lease(r, i, i+1)
	}
	if e := s.finished("a-1", 1)[0]; e.Result.Class != grid.ClassImage || e.Result.Reason != "no such image" {
		t.Errorf("got %+v, want class image", e.Result)
	}
	images.set("a", failure)
	s.dispatcher.wake.Set()
	s.finished("a-1", 2)
	images.mu.Lock()
	defer images.mu.Unlock()
	if images.told != 2 {
		t.Errorf("got %d trials that were told, want one for each try", images.told)
	}
}

// TestImageRoom checks that a problem that is not the trial's keeps the lane waiting, with the
// reason.
func TestImageRoom(t *testing.T) {
	s := newHarness(t, nil)
	l := lane{images: []*grid.Sweep{{ID: "a-1", Task: grid.Task{Image: "a"}}}}
	if n, why := s.trials.environs.containers.imageSlots(l); n != 0 || why.Code != grid.RefusedEngine {
		t.Errorf("got %d and %v without an engine", n, why)
	}
	images := containers(s)
	failed := func(c grid.Class) *docker.ImageError { return &docker.ImageError{Class: c, Reason: "because"} }
	for _, tt := range []struct {
		status docker.ImageStatus
		pinned string
		want   int
		code   grid.RefusalCode
		text   string
	}{
		{docker.ImageStatus{}, "", 0, grid.RefusedImage, "looks for a"},
		{
			docker.ImageStatus{Pulling: &docker.Progress{Done: 43, Total: 100, Last: time.Now().Add(-2 * time.Second)}},
			"",
			0, grid.RefusedImage, "pulls a, 43 % of 100 B, last progress 2 s ago",
		},
		{docker.ImageStatus{Err: failed(grid.ClassRegistry), Unreported: true}, "", 0, grid.RefusedImage, "because"},
		{docker.ImageStatus{Err: failed(grid.ClassDisk), Unreported: true}, "", 0, grid.RefusedImage, "because"},
		{docker.ImageStatus{Err: failed(grid.ClassEngine), Unreported: true}, "", 0, grid.RefusedEngine, "because"},
		{docker.ImageStatus{Err: failed(grid.ClassImage), Unreported: true}, "", 1, "", ""},
		{docker.ImageStatus{Err: failed(grid.ClassImage)}, "", 0, grid.RefusedImage, "because"},
		// another node has the image
		{docker.ImageStatus{Err: failed(grid.ClassImage), Unreported: true}, pinA, 0, grid.RefusedImage, "because"},
	} {
		l.images[0].Pinned = tt.pinned
		images.set("a", tt.status)
		images.set(pinA, tt.status)
		n, why := s.trials.environs.containers.imageSlots(l)
		if n != tt.want || n == 0 && (why.Code != tt.code || why.String() != tt.text) {
			t.Errorf(
				"%+v: got %d and %q (%s), want %d and %q (%s)", tt.status, n, why, why.Code, tt.want, tt.text, tt.code,
			)
		}
	}
	images.set("b", docker.ImageStatus{Image: &docker.Image{}})
	l.images = []*grid.Sweep{{Task: grid.Task{Image: "b"}}}
	if n, _ := s.trials.environs.containers.imageSlots(l); n < 1000 {
		t.Errorf("got room for %d with the image here", n)
	}
}

// TestContainerOfAnAttempt checks that the container sees what a process would, in the same places,
// and has the environment of its image.
func TestContainerOfAnAttempt(t *testing.T) {
	got := make(chan *executor.Attempt, 4)
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		got <- a
		return succeeded()
	})
	images := containers(s)
	data, scratch := t.TempDir(), t.TempDir()
	s.cfg.Containers.Mounts = []grid.Mount{{Source: data, ReadOnly: true}, {Source: scratch}}
	images.set(
		"a",
		docker.ImageStatus{
			Image: &docker.Image{
				Pin: pinA, Env: []string{"PATH=/image/bin", "LANG=C.UTF-8"}, Entrypoint: []string{"/entry"},
				Engine: "unix:///e",
			},
		},
	)
	s.run()
	r := s.sweep("a-1", 1, 1.5, func(r *grid.Sweep) {
		r.Environ = []string{"PATH=/home/bin", "PYTHONPATH=/x", "LANG=de_DE", "https_proxy=p"}
		r.Task.Image, r.Task.Setup = "a", []string{"true"}
		r.Task.Env = map[string]string{"EXTRA": "1"}
		r.Task.Links = []grid.Link{{To: data}}
		r.Task.Container = &grid.Container{
			Shm: 5, Network: "none",
			Mounts:  []grid.Mount{{Source: scratch, Target: "/in"}, {Source: data, ReadOnly: true}},
			Ulimits: []grid.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}},
		}
	})
	s.lease(r, 0, 1)
	s.finished("a-1", 1)
	setup, trial := <-got, <-got
	if len(setup.Container.Entrypoint) != 0 || len(trial.Container.Entrypoint) != 1 {
		t.Errorf(
			"got the entrypoints %v and %v, want none for the setup step and the image's for the trial",
			setup.Container.Entrypoint, trial.Container.Entrypoint,
		)
	}
	c := trial.Container
	if c.Image != "a" || c.Digest != pinA || c.Shm != 5 || c.Network != "none" || c.Shares != 1536 ||
		len(c.Ulimits) != 1 {
		t.Errorf("got %+v", c)
	}
	if want := [2]string{trial.Stdout.Name(), trial.Stderr.Name()}; c.Output != want {
		t.Errorf("got the output %v, want %v", c.Output, want)
	}
	want := []grid.Mount{
		{Source: filepath.Dir(trial.Dir)}, {Source: s.trials.attempts.preparer.bundles.cacheDir},
		{Source: filepath.Join(s.dir, "bundles"), ReadOnly: true},
		{Source: filepath.Join(s.dir, "setups"), ReadOnly: true}, {Source: data, ReadOnly: true},
		{Source: scratch, Target: "/in"},
	}
	if !slices.Equal(c.Mounts, want) {
		t.Errorf("got the mounts %v, want %v", c.Mounts, want)
	}
	if !slices.Contains(setup.Container.Mounts, grid.Mount{Source: filepath.Join(s.dir, "setups")}) {
		t.Errorf("got the mounts %v of the setup step, want its folder for writing", setup.Container.Mounts)
	}
	for _, m := range want {
		if _, err := os.Stat(m.Source); err != nil {
			t.Errorf("a source of a mount is missing: %v", err)
		}
	}
	for _, kv := range []string{
		"PATH=/image/bin", "LANG=C.UTF-8", "https_proxy=p", "EXTRA=1",
		"HOME=" + filepath.Join(s.trials.attempts.preparer.bundles.cacheDir, "home", "t"), "PWD=" + trial.Dir,
		"MLF_TRIAL=a-1/0",
	} {
		if !slices.Contains(trial.Env, kv) {
			t.Errorf("got no %s in %q", kv, trial.Env)
		}
	}
	if slices.ContainsFunc(trial.Env, func(kv string) bool { return strings.HasPrefix(kv, "PYTHONPATH=") }) {
		t.Errorf("got the shell's paths in %q", trial.Env)
	}
}

// TestMountsAreAllowed checks that a node mounts nothing that its settings do not allow, not even
// through links.
func TestMountsAreAllowed(t *testing.T) {
	s := newHarness(t, nil)
	containers(s)
	dir := t.TempDir()
	for _, d := range []string{"data/a", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../other", filepath.Join(dir, "data", "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s.cfg.Containers.Mounts = []grid.Mount{{Source: filepath.Join(dir, "link"), ReadOnly: true}}
	for _, tt := range []struct {
		path string
		ro   bool
		want string // in the refusal
	}{
		{"data/a", true, ""}, {"link/a", true, ""}, {"data", true, ""},
		{"data/a", false, "for writing"}, {"data/out", true, "does not allow"}, {"other", true, "does not allow"},
		{"none", true, "does not have"},
	} {
		m := grid.Mount{Source: filepath.Join(dir, tt.path), ReadOnly: tt.ro}
		err := s.trials.environs.containers.allowMount(&m)
		if at, _ := filepath.EvalSymlinks(filepath.Join(dir, tt.path)); err == nil &&
			(m.Source != at || m.Target != filepath.Join(dir, tt.path)) {
			t.Errorf(
				"%s: got it mounted from %s at %s, want it from where it was looked at, %s", tt.path, m.Source,
				m.Target, at,
			)
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.path, err, tt.want)
		}
	}
}

// TestSetupKeyKnowsTheImage checks that a setup made in one image is not used in another one.
func TestSetupKeyKnowsTheImage(t *testing.T) {
	with := &grid.Task{Setup: []string{"true"}}
	keys := []string{setupKey("c", with, ""), setupKey("c", with, pinA), setupKey("c", with, "b")}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 3 {
		t.Error("got one key for two images")
	}
	if setupKey("c", &grid.Task{}, pinA) != setupKey("c", &grid.Task{}, "") {
		t.Error("got two keys for one bundle that nothing prepares")
	}
}

// TestMountsOncePerPlace checks that each place has one mount: an engine refuses a container with
// two mounts in one place, and the task's own mounts may repeat those of the trial.
func TestMountsOncePerPlace(t *testing.T) {
	all := []grid.Mount{{Source: "/spool"}, {Source: "/live"}, {Source: "/live/"}, {
		Source: "/data", ReadOnly: true,
	}, {Source: "/data"},
		{Source: "/other", Target: "/data/"}, {Source: "/x", Target: "/y"}}
	want := []grid.Mount{
		{Source: "/spool"}, {Source: "/live"}, {Source: "/data", ReadOnly: true}, {Source: "/x", Target: "/y"},
	}
	if got := dedupeMounts(all); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

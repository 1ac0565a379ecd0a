package docker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor/docker/dockertest"
)

// podmanOf gives the service of a Podman that keeps all that it has in a folder, and takes plain HTTP from the registry.
func podmanOf(t *testing.T, registry string) *testEngine {
	t.Helper()
	program, err := exec.LookPath("podman")
	if err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no podman: %v", err)
		}
		t.Skip("no podman (apt-get install podman), or no rights to start it")
	}
	dir, err := os.MkdirTemp("", "mlf-podman-")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "registries.conf")
	writeFile(t, conf, fmt.Sprintf("unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = %q\ninsecure = true\n", registry))
	host := "unix://" + filepath.Join(dir, "podman.sock")
	cmd := exec.Command(program, "--root", dir+"/root", "--runroot", dir+"/run", "--storage-driver", "vfs", "system", "service", "--time", "0", host)
	cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+conf)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	e, err := dial(host)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		if _, err = e.Ping(context.Background()); err == nil {
			return e
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("podman does not answer: %v\n%s", err, text)
		}
	}
}

// Podman tells all failures of a pull in its report, never by the status of the answer.
func TestPodmanPulls(t *testing.T) {
	r := dockertest.NewRegistry(t)
	e := podmanOf(t, r.Host())
	digest := r.PushText("lab/train", "1", "first", 1<<20)
	m := e.images(t)
	s := await(t, m, Want{Reference: r.Host() + "/lab/train:1"})
	if s.Err != nil || s.Image.Pin != r.Host()+"/lab/train@"+digest || strings.Join(s.Image.Env, " ") != "FROM_IMAGE=first" {
		t.Fatalf("got %+v %v, want the image by its digest", s.Image, s.Err)
	}
	r.PushText("lab/train", "1", "second", 1000)
	if s := await(t, m, Want{Reference: r.Host() + "/lab/train:1", Policy: PullAlways, Sweep: "a-2"}); s.Err != nil || s.Image.Pin == r.Host()+"/lab/train@"+digest {
		t.Errorf("got %+v %v, want the new image", s.Image, s.Err)
	}
	if s := await(t, m, Want{Reference: r.Host() + "/lab/train:1", Pinned: r.Host() + "/lab/train@" + digest}); s.Err != nil || s.Image.Env[0] != "FROM_IMAGE=first" {
		t.Errorf("got %+v %v, want the pinned image", s.Image, s.Err)
	}
	if s := await(t, m, Want{Reference: r.Host() + "/lab/none:1"}); s.Err == nil || s.Err.Class != grid.ClassImage {
		t.Errorf("got %+v, want class image for a name that is not there", s.Err)
	}
	r.Set(func() { r.Status = 429 })
	if s := await(t, m, Want{Reference: r.Host() + "/lab/train:3"}); s.Err == nil || s.Err.Class != grid.ClassRegistry {
		t.Errorf("got %+v, want class registry for a rate limit", s.Err)
	}
	r.Set(func() { r.Status, r.Stall = 0, make(chan struct{}) })
	r.PushText("lab/stall", "1", "x", 1<<20)
	if s := await(t, m, Want{Reference: r.Host() + "/lab/stall:1"}); s.Err == nil || s.Err.Class != grid.ClassRegistry || !strings.Contains(s.Err.Reason, "no progress") {
		t.Errorf("got %+v, want class registry for a pull that stalls", s.Err)
	}
}

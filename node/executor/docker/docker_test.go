package docker_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"log/slog"

	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/docker/dockertest"
	"mlfnode/node/executor/executortest"
)

// hostImage is an image of links into the machine's own /usr, so that programs in it have the tools
// that ordinary processes have.
const hostImage = "host:test"

// hostLinks are the links that it holds in addition to folders to mount on.
var hostLinks = map[string]string{"lib": "usr/lib", "lib64": "usr/lib64"}

// logTo returns a logger that writes to the test's log.
func logTo(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// newExecutor returns an executor for an engine.
func newExecutor(t testing.TB, e *dockertest.Engine) *docker.Executor {
	x := docker.New(options(t, e), logTo(t))
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return x
}

func options(t testing.TB, e *dockertest.Engine) docker.Options {
	return docker.Options{Settings: docker.Settings{Socket: e.Host(), OutageTimeout: 30 * time.Second},
		Token: "test-" + filepath.Base(t.TempDir()), Dir: filepath.Join(t.TempDir(), "runs")}
}

// attempt returns an attempt that runs a shell script in busybox.
func attempt(t testing.TB, script string) *executor.Attempt {
	dir := t.TempDir()
	a := &executor.Attempt{
		Spec: executor.Spec{Dir: dir, Grace: 10 * time.Second, Container: &executor.Container{
			Image: dockertest.Image, Mounts: []executor.Mount{{Source: dir}}, Network: "none",
		}},
		Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"},
	}
	for i, f := range []**os.File{&a.Stdout, &a.Stderr} {
		path := filepath.Join(dir, []string{"stdout", "stderr"}[i])
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		*f, a.Container.Output[i] = file, path
	}
	return a
}

func run(t testing.TB, x executor.Executor, a *executor.Attempt) executor.Outcome {
	t.Helper()
	s, err := x.Slot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Run(t.Context(), a)
}

func output(t testing.TB, a *executor.Attempt) (stdout, stderr string) {
	t.Helper()
	var texts [2]string
	for i, path := range a.Container.Output {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(b)
	}
	return texts[0], texts[1]
}

// podmanDiffers names what does not hold for Podman, each with the reason.
var podmanDiffers = map[string]string{
	"signal dispositions":  "Podman's init, catatonit, blocks the stop signals of terminals for its program, too",
	"stop":                 "Podman 4 has no event for a stop, nor another sign of it",
	"stop of a polite one": "Podman 4 has no event for a stop, nor another sign of it",
}

// TestConformance checks with each engine what executors promise.
func TestConformance(t *testing.T) {
	everyEngine(t, conformance)
}

// engineVar names the environment variable with the socket of the engine for tests that run as its
// user.
const engineVar = "MLFNODE_TEST_ENGINE"

// TestConformanceWithoutRoot runs the suite as the user of a rootless engine.
func TestConformanceWithoutRoot(t *testing.T) {
	if dir := os.Getenv(engineVar); dir != "" {
		conformance(t, dockertest.Of(dir))
		return
	}
	e := dockertest.NewKind(t, dockertest.Rootless)
	e.RunAsUser(t, "TestConformanceWithoutRoot", engineVar+"="+e.Dir)
}

// everyEngine runs a test with each engine.
func everyEngine(t *testing.T, test func(*testing.T, *dockertest.Engine)) {
	for name, engine := range map[string]*dockertest.Shared{"Docker": &docker.Shared, "Podman": &docker.SharedPodman} {
		t.Run(name, func(t *testing.T) { test(t, engine.Engine(t)) })
	}
}

func conformance(t *testing.T, e *dockertest.Engine) {
	if err := e.Import(hostImage, hostLinks); err != nil {
		t.Fatal(err)
	}
	differs := map[string]string{
		"refusals":                "the image decides what there is to run, and its shell says what it can't run; see TestMissingProgramsAreRefused",
		"open for writing":        "the shell of the image starts the program, and does not wait for those who write it",
		"lookup":                  "names are looked up by the shell of the image; see TestMissingProgramsAreRefused",
		"nested cgroups":          "a container's cgroups are the engine's",
		"output that others hold": "process ids of a container are its own",
	}
	if e.Kind == dockertest.Podman {
		const name = "signal dispositions"
		differs[name] = podmanDiffers[name]
	}
	var info struct{ MemoryLimit bool }
	if err := e.Do("GET", "/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	if e.Kind == dockertest.Rootless && !info.MemoryLimit {
		for _, name := range []string{"cpu", "memory", "memory limit", "memory limit is lifted"} {
			differs[name] = "on cgroup v1, an engine without root rights has no cgroups that would limit or count what a container uses"
		}
	}
	executortest.RunKit(t, &executortest.Kit{
		New: func(t *testing.T) executor.Executor { return newExecutor(t, e) },
		Prepare: func(dir string, a *executor.Attempt) {
			a.Container = &executor.Container{
				Image: hostImage, Network: "none",
				Mounts: []executor.Mount{{Source: dir}, {Source: "/usr", ReadOnly: true},
					{Source: "/bin", ReadOnly: true}, {Source: "/etc", ReadOnly: true}},
			}
		},
		Contained: true,
		Differs:   differs,
	})
}

// Package dockertest provides tests with a container engine and an image registry of their own. The
// engine is a dockerd or the service of Podman, without networks and with all its data in one
// folder. Both end with the test.
package dockertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/node/poll"
	"mlfnode/node/procfs"
)

// Image is the image that every engine has: a shell and the small tools of busybox.
const Image = "busybox:test"

const (
	dockerd = "/usr/sbin/dockerd"
	busybox = "/bin/busybox"
	// startTime bounds the start of an engine, stopTime its end.
	startTime = time.Minute
	stopTime  = time.Minute
)

// Kind is a kind of engine.
type Kind string

// The kinds.
const (
	Docker   Kind = "Docker"
	Podman   Kind = "Podman"
	Rootless Kind = "Docker without root rights"
)

// Engine is a running engine.
type Engine struct {
	*Client

	Dir  string
	Args []string // for the next Start, after our own
	Kind Kind

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// New makes an engine with the image and starts it. The engine ends with the test, along with
// everything that runs in it. The test is skipped where the engine is not installed.
func New(t testing.TB, args ...string) *Engine { return NewKind(t, Docker, args...) }

// NewKind is New for an engine of any kind.
func NewKind(t testing.TB, kind Kind, args ...string) *Engine {
	t.Helper()
	kind.need(t)
	e, err := open(&Engine{Kind: kind, Args: args})
	refused(t, err)
	t.Cleanup(e.Close)
	return e
}

// need skips the test where an engine of the kind can't run.
func (k Kind) need(t testing.TB) {
	t.Helper()
	switch k {
	case Podman:
		NeedPodman(t)
	case Rootless:
		NeedRootless(t)
	default:
		Need(t)
	}
}

// refused ends the test if its engine did not start.
func refused(t testing.TB, err error) {
	t.Helper()
	var forbidden *ForbiddenError
	switch {
	case errors.As(err, &forbidden):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// Need skips the test where no engine can run.
func Need(t testing.TB) {
	t.Helper()
	for _, file := range []string{dockerd, busybox} {
		if _, err := os.Stat(file); (err != nil || os.Getuid() != 0) && os.Getenv("CI") != "true" {
			t.Skipf("no %s (apt-get install docker.io busybox-static), or no rights to start it", file)
		}
	}
}

// Open is like New for an engine that outlives a single test; the caller calls Close.
func Open(args ...string) (*Engine, error) { return open(&Engine{Kind: Docker, Args: args}) }

// open starts an engine of this kind.
func open(e *Engine) (_ *Engine, err error) {
	if e.Dir, err = os.MkdirTemp("", "mlf-engine-"); err != nil { // a short path: the length of socket paths is limited
		return nil, err
	}
	e.Client = newClient(e.path("docker.sock"))
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if err := e.Start(); err != nil {
		return nil, err
	}
	tools := map[string]string{}
	for _, name := range []string{"sh", "sleep", "cat", "true", "echo", "kill", "dd", "head", "tail", "env", "id", "ls",
		"rm", "mkdir", "touch", "wc",
		"seq", "setsid", "tr", "yes", "sha256sum", "chmod", "ln", "printf", "grep", "sed", "readlink", "stat", "test",
		"timeout", "mkfifo", "ps", "nohup", "cp", "mv"} {
		tools["bin/"+name] = "/bin/busybox"
	}
	if err := e.Import(Image, tools); err != nil {
		return nil, err
	}
	return e, e.tryContainer()
}

func (e *Engine) path(name string) string {
	if e.Kind == Rootless { // all files of the engine are in its user's folder
		switch name {
		case "data", "exec", "docker.sock", "pid", "exec/containerd/containerd.pid":
			return filepath.Join(e.Dir, "run", name)
		}
	}
	return filepath.Join(e.Dir, name)
}

// Host returns the address at which the engine listens.
func (e *Engine) Host() string { return "unix://" + e.path("docker.sock") }

// Allow lets another user talk to the engine until it is started again.
func (e *Engine) Allow(t testing.TB, user int) {
	t.Helper()
	if err := errors.Join(os.Chmod(e.Dir, 0o711), os.Chown(e.path("docker.sock"), user, user)); err != nil {
		t.Fatal(err)
	}
}

// PID returns the process ID of the engine.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Start starts an engine that is not running, and waits until it answers.
func (e *Engine) Start() error {
	log, err := os.OpenFile(e.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"--data-root", e.path("data"), "--exec-root", e.path("exec"), "--host", e.Host(),
		"--pidfile", e.path("pid"),
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-masq=false"}, e.Args...)
	switch e.Kind {
	case Podman:
		e.cmd, err = e.podmanService()
	case Rootless:
		e.cmd, err = e.rootlessService(args)
	default:
		e.cmd = exec.Command(dockerd, args...)
	}
	if err != nil {
		return err
	}
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		return err
	}
	cmd, done := e.cmd, make(chan struct{})
	e.done = done
	go func() { // ends with the engine
		defer close(done)
		_ = cmd.Wait()
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(startTime)
	for {
		if err = e.Do(http.MethodGet, "/_ping", nil, nil); err == nil {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-done:
			err = fmt.Errorf("it ended immediately")
		case <-limit:
		}
		text, _ := os.ReadFile(e.path("log"))
		return fmt.Errorf("the engine does not answer: %w\n%s", err, text[max(0, len(text)-4096):])
	}
}

// Signal sends the engine a signal and waits for it to end.
func (e *Engine) Signal(s syscall.Signal) {
	_ = e.cmd.Process.Signal(s) // it may have ended
	select {
	case <-e.done:
	case <-time.After(stopTime):
		_ = e.cmd.Process.Kill()
		<-e.done
	}
	if s == syscall.SIGKILL {
		_ = os.Remove(e.path("pid")) // it would keep the next engine from starting if its PID were in use
		e.endContainerd()            // it dies with its parent, but the next engine may look before that
	}
}

// Close ends the engine with everything in it, and removes its folder.
func (e *Engine) Close() {
	if e.cmd != nil {
		for _, id := range e.Containers() {
			_ = e.Do(http.MethodDelete, "/containers/"+id+"?force=1&v=1", nil, nil)
		}
		e.Signal(syscall.SIGTERM)
		e.endContainerd()
		for _, pid := range procfs.PIDs() { // shims that no engine knows any more have its folder on their command line
			if pid != os.Getpid() && strings.Contains(procfs.Text(pid, "cmdline"), e.Dir+"/") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], e.Dir) {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/libpod_parent", "/sys/fs/cgroup/*/libpod_parent"} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			_ = os.Remove(filepath.Join(dir, "conmon")) // those of another Podman are not empty
			_ = os.Remove(dir)
		}
	}
	_ = os.RemoveAll(e.Dir)
}

// endContainerd ends the containerd of an engine that was killed. Containers keep running without
// it.
func (e *Engine) endContainerd() {
	file := e.path("exec/containerd/containerd.pid")
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil || pid <= 1 {
		return
	}
	poll.Within(context.Background(), 5*time.Second, 10*time.Millisecond, func() bool {
		if !strings.Contains(procfs.Text(pid, "cmdline"), e.Dir) {
			return true
		}
		_ = syscall.Kill(pid, syscall.SIGTERM)
		return false
	})
	_ = os.Remove(file)
}

// Shared provides one engine to all tests of a package; call End after them.
type Shared struct {
	Kind Kind // the zero value means Docker

	once   sync.Once
	engine *Engine
	err    error
}

// Engine returns the engine, which it starts on the first call.
func (s *Shared) Engine(t testing.TB) *Engine {
	t.Helper()
	s.Kind.need(t)
	s.once.Do(func() { s.engine, s.err = open(&Engine{Kind: s.Kind}) })
	refused(t, s.err)
	return s.engine
}

// End ends the engine, if one was started.
func (s *Shared) End() {
	if s.engine != nil {
		s.engine.Close()
	}
}

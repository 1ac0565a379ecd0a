// Package containers tests, on the real program and real container engines, tasks that name an
// image: on one machine and in a cluster whose nodes have an engine each.
package containers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid/gridtest"
	"mlfnode/node/executor/docker/dockertest"
)

// program is the binary under test, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mlfnode-containers-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "mlfnode")
	out, err := exec.Command("go", "build", "-o", name, "mlfnode/cmd/mlfnode").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build mlfnode: %w\n%s", err, out)
	}
	return name, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if name, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

// machine is a user's home with a state folder of its own.
type machine struct {
	t    *testing.T
	dir  string
	env  []string
	user uint32 // who runs its commands; 0 is the user of the test
}

func newMachine(t *testing.T, env ...string) *machine {
	t.Helper()
	dockertest.Need(t)
	dir := t.TempDir()
	base := []string{"HOME=" + dir, "XDG_STATE_HOME=" + filepath.Join(dir, "state"), "PATH=" + os.Getenv("PATH"),
		"NO_COLOR=1", "MLF_CPUS=4"}
	return &machine{t: t, dir: dir, env: append(base, env...)}
}

func (m *machine) command(args ...string) *exec.Cmd {
	m.t.Helper()
	name, err := program()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = m.env, m.dir
	if m.user != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: m.user, Gid: m.user}}
	}
	return cmd
}

// become has another user run the machine's commands from here on.
func (m *machine) become(user uint32) {
	m.t.Helper()
	name, err := program()
	if err != nil {
		m.t.Fatal(err)
	}
	m.user = user
	if err := errors.Join(os.Chmod(filepath.Dir(name), 0o755), os.Chmod(filepath.Dir(m.dir), 0o755),
		os.Chown(m.dir, int(user), int(user))); err != nil {
		m.t.Fatal(err)
	}
}

// run gives what a command prints and its exit code.
func (m *machine) run(args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	cmd := m.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer limit.Stop()
	cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, errs, code := m.run(args...)
	if code != 0 {
		m.t.Fatalf("mlfnode %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// project writes a project whose task runs a script of the shell in an image.
func (m *machine) project(name, image, script string, more ...string) {
	m.t.Helper()
	text := "tasks:\n  t:\n    command: [sh, main.sh]\n    image: " + image + "\n"
	for _, line := range more {
		text += "    " + line + "\n"
	}
	for file, content := range map[string]string{"project.yaml": text, "main.sh": script,
		"parameters.yml": "x: [1, 2, 3, 4]\n"} {
		m.write(filepath.Join(name, file), content)
	}
}

// result is what the tests look at in a row of results.
type result struct {
	Index  int64  `json:"index"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Node   string `json:"node"`

	Attempts int `json:"attempts"`
}

func (m *machine) results(sweep string) []result {
	m.t.Helper()
	var all []result
	if err := json.Unmarshal([]byte(m.must("trials", sweep, "--json")), &all); err != nil {
		m.t.Fatal(err)
	}
	return all
}

const script = `echo "image $FROM_IMAGE user $(id -u):$(id -g) made $(cat made)"
mkdir -p result && echo "$1" >result/file && echo kept >>"$MLF_CACHE/seen" && echo home >"$HOME/file"
echo '{"y": 1}' >"$MLF_METRICS"`

// TestSweepInContainers runs a whole sweep on one machine: pulled once, set up once in the image,
// with output, metrics and artifacts that belong to the user; and nothing is left behind.
func TestSweepInContainers(t *testing.T) {
	dockertest.Need(t)
	e, r := dockertest.New(t), dockertest.NewRegistry(t)
	r.PushBusybox("lab/train", "1", "first")
	m := newMachine(t, "MLF_ENGINE_SOCKET="+e.Host())
	m.project("p", r.Host()+"/lab/train:1", script,
		`setup: [sh, -c, 'echo "by $FROM_IMAGE" >made; echo once >>"$MLF_CACHE/setups"']`, `artifacts: ["result/**"]`)
	m.must("sweep", "-q", "p")
	for i := range 4 {
		want := fmt.Sprintf("image first user %d:%d made by first\n", os.Getuid(), os.Getgid())
		if got := m.must("logs", fmt.Sprintf("last/%d", i)); got != want {
			t.Errorf("trial %d printed %q, want %q", i, got, want)
		}
	}
	for _, tr := range m.results("last") {
		if tr.State != "succeeded" {
			t.Errorf("got %+v, want success", tr)
		}
	}
	m.must("artifacts", "last", "-o", "out")
	var files []string
	err := filepath.WalkDir(filepath.Join(m.dir, "out"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) != 4 {
		t.Errorf("got the artifacts %v (%v), want one of each trial", files, err)
	}
	cache := filepath.Join(m.dir, "state", "mlfnode", "cache")
	for file, want := range map[string]string{"setups": "once\n", "seen": "kept\nkept\nkept\nkept\n",
		"home/p/file": "home\n"} {
		b, err := os.ReadFile(filepath.Join(cache, file))
		if err != nil || string(b) != want {
			t.Errorf("%s: got %q and %v, want %q", file, b, err, want)
		}
	}
	if n := r.Count("/manifests/"); n > 2 {
		t.Errorf("got %d requests for the manifest, want those of one pull", n)
	}
	if left := e.Containers(); len(left) != 0 {
		t.Errorf("containers are left: %v", left)
	}
}

// TestMissingImagePausesTheSweep has a name that does not exist, and goes on once it does.
func TestMissingImagePausesTheSweep(t *testing.T) {
	dockertest.Need(t)
	e, r := dockertest.New(t), dockertest.NewRegistry(t)
	m := newMachine(t, "MLF_ENGINE_SOCKET="+e.Host())
	m.project("p", r.Host()+"/lab/late:1", `echo "$FROM_IMAGE"`)
	_, errs, code := m.run("sweep", "p")
	if code == 0 || !strings.Contains(errs, "paused, because its image could not be had") ||
		!strings.Contains(errs, "lab/late:1") {
		t.Fatalf("got exit code %d and %q, want the sweep paused with the reason", code, errs)
	}
	r.PushBusybox("lab/late", "1", "late")
	m.must("resume", "-q", "last")
	for _, tr := range m.results("last") {
		if tr.State != "succeeded" {
			t.Errorf("got %+v, want success", tr)
		}
	}
}

// TestNoEngineRefusesTheSweep says immediately what is missing, and stores nothing.
func TestNoEngineRefusesTheSweep(t *testing.T) {
	m := newMachine(t, "MLF_ENGINE_SOCKET=unix:///nowhere/docker.sock")
	m.project("p", "python:3.12", "true")
	_, errs, code := m.run("sweep", "p")
	if code == 0 || !strings.Contains(errs, "no container engine answers: unix:///nowhere/docker.sock") {
		t.Errorf("got exit code %d and %q, want a refusal", code, errs)
	}
	if list := m.must("sweeps", "--json"); strings.Contains(list, `"sweep"`) {
		t.Errorf("got the sweeps %s, want none", list)
	}
}

// freePort gives a port on which nobody listens.
func freePort(t *testing.T) string { return strconv.Itoa(gridtest.FreePort(t)) }

// node starts an agent that ends with the test.
func (m *machine) node(args ...string) {
	m.t.Helper()
	cmd := m.command(args...)
	log, err := os.Create(filepath.Join(m.dir, "agent.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && m.t.Failed() {
			m.t.Logf("%s:\n%s", filepath.Base(m.dir), text)
		}
	})
}

// until waits for something that a command shows.
func (m *machine) until(what string, args ...string) {
	m.t.Helper()
	out, errs := "", ""
	defer func() {
		if m.t.Failed() {
			m.t.Logf("mlfnode %s shows\n%s%s", strings.Join(args, " "), out, errs)
		}
	}()
	m.eventually(fmt.Sprintf("mlfnode %s to show %q", strings.Join(args, " "), what), func() bool {
		out, errs, _ = m.run(args...)
		return strings.Contains(out, what)
	})
}

// eventually waits for a condition, for a minute.
func (m *machine) eventually(what string, ok func() bool) {
	m.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			m.t.Fatalf("waited a minute in vain for %s", what)
		}
	}
}

// newCluster makes two nodes, each with an engine of its own.
func newCluster(t *testing.T) (a, b *machine, engines [2]*dockertest.Engine) {
	return newClusterOf(t, 0)
}

// newClusterOf makes the nodes of a user; 0 is the user of the test.
func newClusterOf(t *testing.T, user uint32) (a, b *machine, engines [2]*dockertest.Engine) {
	t.Helper()
	dockertest.Need(t)
	engines = [2]*dockertest.Engine{dockertest.New(t), dockertest.New(t)}
	api := freePort(t)
	common := []string{"MLF_BIND=127.0.0.1", "MLF_ADVERTISE=127.0.0.1", "MLF_CPUS=2"}
	a = newMachine(t, append(common, "MLF_NODE=nodea", "MLF_ENGINE_SOCKET="+engines[0].Host(), "MLF_PORTS_API="+api,
		"MLF_PORTS_NATS="+freePort(t), "MLF_PORTS_GOSSIP="+freePort(t))...)
	if user != 0 {
		a.become(user)
		for _, e := range engines {
			e.Allow(t, int(user))
		}
	}
	a.node("master")
	a.until("nodea", "members")
	token, _, found := strings.Cut(strings.TrimPrefix(a.must("token"), "MLF_CLUSTER_TOKEN="), " ")
	if !found {
		t.Fatalf("got no token, %q", token)
	}
	b = newMachine(t, append(common, "MLF_NODE=nodeb", "MLF_ENGINE_SOCKET="+engines[1].Host(),
		"MLF_PORTS_GOSSIP="+freePort(t), "MLF_CLUSTER_TOKEN="+token)...)
	if user != 0 {
		b.become(user)
	}
	return a, b, engines
}

// TestMovedTagDoesNotMixImages has a tag moved between the first trial on one node and the pull of
// the next node.
func TestMovedTagDoesNotMixImages(t *testing.T) {
	a, b, _ := newCluster(t)
	r := dockertest.NewRegistry(t)
	r.PushBusybox("lab/train", "1", "old")
	a.project("p", r.Host()+"/lab/train:1", `echo "$FROM_IMAGE"; until [ -e `+a.dir+`/go ]; do sleep 0.1; done`,
		`share: ["`+a.dir+`"]`)
	a.must("sweep", "--detach", "p")
	a.until(`"running":2`, "sweeps", "--json")
	a.until("@sha256:", "sweeps", "--json")
	r.PushBusybox("lab/train", "1", "new")
	b.node("join", "--seed", seedOf(a))
	a.until(`"running":4`, "sweeps", "--json")
	if err := os.WriteFile(filepath.Join(a.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.until(`"state":"finished"`, "sweeps", "--json")
	nodes := map[string]bool{}
	for i, tr := range a.results("last") {
		nodes[tr.Node] = true
		if got := a.must("logs", fmt.Sprintf("last/%d", i)); tr.State != "succeeded" || got != "old\n" {
			t.Errorf("got %+v, which printed %q, want the image of the first trial", tr, got)
		}
	}
	if len(nodes) != 2 {
		t.Errorf("got trials on %v, want them on both nodes", nodes)
	}
}

// TestImageOfOneNode runs where the image is, and says on the others why not there.
func TestImageOfOneNode(t *testing.T) {
	a, b, engines := newCluster(t)
	b.node("join", "--seed", seedOf(a))
	a.until("nodeb", "members")
	if err := engines[1].Import("built-here:1",
		map[string]string{"bin/sh": "/bin/busybox", "bin/sleep": "/bin/busybox"}); err != nil {
		t.Fatal(err)
	}
	a.project("p", "built-here:1", "sleep 0.3", "container: {pull: never}")
	a.must("sweep", "-q", "p")
	var nodes []string
	for _, tr := range a.results("last") {
		if tr.State != "succeeded" {
			t.Errorf("got %+v, want success", tr)
		}
		nodes = append(nodes, tr.Node)
	}
	slices.Sort(nodes)
	if nodes = slices.Compact(nodes); !slices.Equal(nodes, []string{"nodeb"}) {
		t.Errorf("got trials on %v, want them where the image is", nodes)
	}
}

func seedOf(m *machine) string {
	for _, kv := range m.env {
		if port, ok := strings.CutPrefix(kv, "MLF_PORTS_API="); ok {
			return "127.0.0.1:" + port
		}
	}
	return ""
}

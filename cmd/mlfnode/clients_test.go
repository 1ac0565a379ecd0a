package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/trust"
	"mlfnode/grid/gridtest"
	"mlfnode/node"
	"mlfnode/node/config"
)

// clientTimeout is the longest that a test waits for one thing.
const clientTimeout = 30 * time.Second

// testCluster is a master in this process. Its commands are given --state-dir, so that they are its
// owner's.
type testCluster struct {
	t     *testing.T
	state string
	gate  string // trials run until this file is there
	ports config.Ports
	node  *node.Node
}

// newTestCluster makes the folder of a master that does not run.
func newTestCluster(t *testing.T) *testCluster {
	t.Helper()
	home := t.TempDir()
	for key, value := range map[string]string{"HOME": home, "XDG_CONFIG_HOME": home + "/config",
		"XDG_STATE_HOME": home + "/state", "MLF_CPUS": "4"} {
		t.Setenv(key, value)
	}
	t.Chdir(home)
	c := &testCluster{t: t, state: filepath.Join(t.TempDir(), "master"), gate: filepath.Join(t.TempDir(), "gate")}
	c.start()
	c.stop()
	return c
}

func (c *testCluster) start() {
	c.t.Helper()
	cfg, err := config.Load("")
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.StateDir, cfg.Node = c.state, "m"
	cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Ports = "127.0.0.1", "127.0.0.1", c.ports
	if c.node, err = node.OpenMaster(c.t.Context(), cfg); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if c.node != nil {
			c.node.Stop()
		}
		c.stop()
	})
}

// stop ends the master's agent; its programs go on.
func (c *testCluster) stop() {
	if c.node != nil {
		c.node.Close()
		c.node = nil
	}
}

// sweep gives the command line of a sweep, sh-1, of three trials that run until the gate is open.
func (c *testCluster) sweep(flags ...string) []string {
	args := append([]string{"sweep", "--set", "i=0:3"}, flags...)
	return append(args, "--", "sh", "-c", "echo begun >>"+c.gate+".begun; until [ -e "+c.gate+" ]; do sleep 0.05; done")
}

// awaitBegun waits until the three trials run.
func (c *testCluster) awaitBegun() {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(clientTimeout); ; {
		if b, _ := os.ReadFile(c.gate + ".begun"); bytes.Count(b, []byte("begun")) == 3 {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			c.t.Fatal("the trials do not begin")
		}
	}
}

// end lets the trials end.
func (c *testCluster) end() {
	c.t.Helper()
	if err := os.WriteFile(c.gate, nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// checkOnce wants that no trial was stopped or run twice.
func (c *testCluster) checkOnce() {
	c.t.Helper()
	if b, _ := os.ReadFile(c.gate + ".begun"); bytes.Count(b, []byte("begun")) != 3 {
		c.t.Errorf("trials began %d times, want 3", bytes.Count(b, []byte("begun")))
	}
}

// client is a command that runs in this process.
type client struct {
	t          *testing.T
	name       string
	interrupts *interrupts
	cancel     func()
	out, err   *shown
	code       chan int
}

// shown is what a command prints, for a test that waits for it.
type shown struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	close(s.grown)
	s.grown = make(chan struct{})
	return len(p), nil
}

func (s *shown) now() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.grown
}

func open(t *testing.T, args ...string) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // ends with the test
	c := &client{
		t: t, name: strings.Join(args, " "), interrupts: &interrupts{}, cancel: cancel,
		out: &shown{grown: make(chan struct{})}, err: &shown{grown: make(chan struct{})}, code: make(chan int, 1),
	}
	go func() { c.code <- run(ctx, c.interrupts, args, c.out, c.err) }()
	t.Cleanup(cancel)
	return c
}

// see waits until the command has said one of these texts.
func (c *client) see(text ...string) {
	c.t.Helper()
	limit := time.After(clientTimeout)
	for {
		said, grown := c.err.now()
		if slices.ContainsFunc(text, func(t string) bool { return strings.Contains(said, t) }) {
			return
		}
		select {
		case <-grown:
		case <-limit:
			c.t.Fatalf("%s: got %q, want %q in it", c.name, said, text)
		}
	}
}

// exit waits for the end of the command, and gives all that it printed.
func (c *client) exit(code int) string {
	c.t.Helper()
	select {
	case got := <-c.code:
		out, _ := c.out.now()
		said, _ := c.err.now()
		if got != code {
			c.t.Errorf("%s: got exit code %d, want %d\n%s%s", c.name, got, code, out, said)
		}
		return out + said
	case <-time.After(clientTimeout):
		said, _ := c.err.now()
		c.t.Fatalf("%s does not end:\n%s", c.name, said)
	}
	panic("unreachable")
}

func (c *testCluster) open(args ...string) *client {
	return open(c.t, append([]string{"--state-dir", c.state}, args...)...)
}

// context is that of a user who has a token, for a master that is said to be at the address.
func (c *testCluster) context(address string) trust.Context {
	c.t.Helper()
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(c.open("token", "--role", "operator", "--json").exit(0)), &made); err != nil {
		c.t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		c.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(c.state, "trust", "ca.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	return trust.Context{Master: []string{address}, CA: string(ca), Token: token.Bearer()}
}

// TestFolderOfAClusterIsNotTaken types every kind of command on the machine of a master that is
// down: each says so, none becomes the node, and none has anything to do with the folder when the
// master comes back while they wait.
func TestFolderOfAClusterIsNotTaken(t *testing.T) {
	c := newTestCluster(t)
	commands := [][]string{
		{"sweeps"}, {"results", "last"}, {"trials", "last"}, {"logs", "last"}, {"artifacts", "last"},
		{"members"}, {"gpus"},
		{"pause", "last"}, {"cancel", "last"}, {"resume", "last"}, {"retry", "last"}, {"drain", "m"}, {"token"},
		{"sweep", "-q", "--", "true"}, {"sweep", "-d", "--", "true"}, {"host"},
	}
	var all []*client
	for _, args := range commands {
		all = append(all, c.open(args...))
	}
	for _, cl := range all {
		if said := cl.exit(1); !strings.Contains(said, "the master of this machine is down") ||
			!strings.Contains(said, "try: start it with: mlfnode master --state-dir ") {
			t.Errorf("%s: got\n%s\nwant that the master is down", cl.name, said)
		}
	}
	waiting := []*client{c.open("sweeps"), c.open("members"), c.open("sweep", "-d", "--", "true")}
	for _, w := range waiting {
		w.see("waiting for it")
	}
	c.start()
	for _, w := range waiting {
		w.exit(0)
	}
}

// TestFolderOfAWorkerIsNotTaken has the machine of a worker whose user has no token.
func TestFolderOfAWorkerIsNotTaken(t *testing.T) {
	c := newTestCluster(t)
	if err := os.Remove(filepath.Join(c.state, "trust", "ca.key")); err != nil { // what tells a master's folder
		t.Fatal(err)
	}
	for _, args := range [][]string{{"sweeps"}, {"sweep", "-q", "--", "true"}, {"resume", "last"}} {
		if said := c.open(args...).exit(1); !strings.Contains(said, "this machine is a worker of the cluster of") {
			t.Errorf("%v: got\n%s", args, said)
		}
	}
	if _, err := node.Attach(t.Context(), config.Config{StateDir: c.state}, false,
		func() {}); err != node.ErrOfCluster {
		t.Errorf("attach: got %v, want %v", err, node.ErrOfCluster)
	}
}

// TestSignalsToAWatcher has a sweep of a cluster followed by commands that get each signal: the
// sweep goes on, and the commands say how to go on with it.
func TestSignalsToAWatcher(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	first := c.open(c.sweep()...)
	c.awaitBegun()
	watchers := map[syscall.Signal]*client{syscall.SIGINT: first, syscall.SIGTERM: c.open("resume", "sh-1"),
		syscall.SIGHUP: c.open("resume", "sh-1", "-q")}
	watchers[syscall.SIGTERM].see("3 of 3 trials left")
	for sig, w := range watchers {
		w.interrupts.deliver(sig, w.cancel)
		said := w.exit(exitInterrupted)
		for _, want := range []string{
			"sh-1 continues in the cluster; watch it again with: mlfnode resume sh-1, or follow its output with: mlfnode logs -f sh-1\n",
			"pause it with: mlfnode pause sh-1, end it with: mlfnode cancel sh-1\n",
		} {
			// it may not have come to follow yet
			if !strings.Contains(said, want) && w.name != watchers[syscall.SIGHUP].name {
				t.Errorf("%v: got\n%s\nwant %q in it", sig, said, want)
			}
		}
	}
	if got := c.open("sweeps", "--json").exit(0); !strings.Contains(got, `"state":"running"`) {
		t.Errorf("sweeps: got %s, want it running", got)
	}
	last := c.open("resume", "sh-1")
	last.see("3 of 3 trials left")
	c.end()
	if said := last.exit(0); !strings.Contains(said, "sh-1 finished: 3 of 3 succeeded") {
		t.Errorf("got\n%s", said)
	}
	c.checkOnce()
}

// TestRestartOfTheMasterEndsNoClient restarts the master under followers of all kinds, on its own
// machine with and without a context of its cluster.
func TestRestartOfTheMasterEndsNoClient(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	c.open(c.sweep("-d")...).exit(0)
	c.awaitBegun()
	followers := []*client{c.open("resume", "sh-1"), c.open("logs", "-f", "sh-1")}
	followers[0].see("3 of 3 trials left")
	if _, err := node.SaveContext(c.context("127.0.0.1:1")); err != nil {
		t.Fatal(err)
	}
	withContext := c.open("resume", "sh-1")
	withContext.see("3 of 3 trials left")
	for range 2 {
		c.stop()
		followers[0].see("waiting for it (trials continue)")
		c.start()
	}
	c.end()
	for _, f := range append(followers, withContext) {
		f.exit(0)
	}
	c.checkOnce()
}

// TestClusterThatIsNotThere has a user whose cluster is away, or was taken down: commands say so
// and leave this machine alone; with --local they are for this machine.
func TestClusterThatIsNotThere(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	context := c.context(address)
	c.stop()
	state := filepath.Join(os.Getenv("XDG_STATE_HOME"), "mlfnode")
	for _, down := range []*trust.Down{nil, {At: time.Now(), File: "/lab/cluster.yaml"}} {
		context.Down = down
		if _, err := node.SaveContext(context); err != nil {
			t.Fatal(err)
		}
		wants := []string{"can't be reached", "(last used ", "--local runs on this machine alone"}
		if down != nil {
			wants = []string{"the cluster of 127.0.0.1 was taken down on ",
				"start it with: mlfnode up -f /lab/cluster.yaml; --local runs on this machine alone"}
		}
		var all []*client
		for _, args := range [][]string{{"sweeps"}, {"results", "last"}, {"logs", "last"}, {"members"},
			{"cancel", "last"}, {"sweep", "-q", "--", "true"}, {"sweep", "-d", "--", "true"}} {
			all = append(all, open(t, args...))
		}
		for _, cl := range all {
			said := cl.exit(1)
			for _, want := range wants {
				if !strings.Contains(said, want) {
					t.Errorf("%s: got\n%s\nwant %q in it", cl.name, said, want)
				}
			}
		}
		if _, err := os.Stat(state); err == nil {
			t.Fatalf("a command for the cluster has made %s", state)
		}
	}
	open(t, "sweep", "-q", "--local", "--", "true").exit(0)
	if got := open(t, "sweeps", "--local", "--json").exit(0); !strings.Contains(got, `"sweep":"true-1"`) {
		t.Errorf("sweeps --local: got %s", got)
	}
}

// TestLocalBesideACluster runs a sweep alone on the machine of a master: it has a folder of its
// own.
func TestLocalBesideACluster(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	c.open("sweep", "-q", "--local", "--", "true").exit(0)
	if got := c.open("sweeps", "--local", "--json").exit(0); !strings.Contains(got, `"succeeded":1`) {
		t.Errorf("alone: got %s", got)
	}
	if got := c.open("sweeps", "--json").exit(0); strings.Contains(got, "true-1") {
		t.Errorf("in the cluster: got %s, want nothing", got)
	}
}

// TestFolderOfAnotherMachine waits for nobody on a shared disk whose lock another machine holds.
func TestFolderOfAnotherMachine(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), []byte("gpu2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())
	if got := open(t, "sweeps", "--state-dir", dir, "--json").exit(0); got != "[]\n" {
		t.Errorf("a folder that gpu2 has left: got %s", got)
	}
}

// TestFolderThatAnotherMachineHolds finds the lock of a shared disk held by a machine whose
// processes can't be seen, and says immediately which.
func TestFolderThatAnotherMachineHolds(t *testing.T) {
	gridtest.Root(t, "namespaces")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := lock.WriteString("gpu9\n"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c := exec.Command(gridtest.Program(t, "unshare"), "--pid", "--fork", "--mount-proc", "--kill-child=KILL",
		asProgram(t), "sweeps", "--state-dir", dir)
	c.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := c.CombinedOutput()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 1 ||
		!strings.Contains(string(out), "an mlfnode on gpu9 uses the state folder "+dir) {
		t.Errorf("got %v\n%s", err, out)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("said after %v, want immediately", took)
	}
}

// TestSweepInsideATrial has trials that run sweeps themselves: one on the node of the trial is
// refused with a word, since both would wait for each other, and one that is detached or has a node
// of its own runs.
func TestSweepInsideATrial(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	for state, cluster := range map[string]bool{c.state: true, filepath.Join(t.TempDir(), "alone"): false} {
		t.Setenv("MLF_TRIAL", "outer-1/0")
		t.Setenv("MLF_OUT", filepath.Join(state, "spool", "1", "out"))
		inner := func(args ...string) *client { return open(t, append([]string{"--state-dir", state}, args...)...) }
		for _, args := range [][]string{{"sweep", "-q", "--", "true"}, {"resume", "last"}, {"retry", "last"}} {
			if args[0] != "sweep" && !cluster {
				continue // there is nothing to resume yet
			}
			if said := inner(args...).exit(1); !strings.Contains(said, "this runs inside trial outer-1/0") ||
				!strings.Contains(said, "try: -d submits it") {
				t.Errorf("%v in %s: got\n%s", args, state, said)
			}
		}
		if cluster { // alone, the node in the background would outlive the test
			inner("sweep", "-d", "--", "true").exit(0)
		}
		open(t, "--local", "--state-dir", t.TempDir()+"/own", "sweep", "-q", "--", "true").exit(0)
	}
}

// TestSweepWithinATrial has a trial of a cluster run a sweep: it leaves the cluster alone.
func TestSweepWithinATrial(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	out := filepath.Join(c.state, "spool", "1", "out")
	if err := os.MkdirAll(out, 0o700); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"MLF_TRIAL": "outer-1/0", "MLF_OUT": out, "MLF_TRIAL_CPUS": "0.5",
		"MLF_STATE": "", "XDG_STATE_HOME": filepath.Dir(c.state)} {
		t.Setenv(key, value)
	}
	if said := open(t, "sweep", "--cpus", "0.5", "--set", "i=1,2", "--",
		"echo", "inner").exit(0); !strings.Contains(said, "that trial outer-1/0 holds (cpus: 0.5)") {
		t.Errorf("got\n%s", said)
	}
	if said := open(t, "--local", "results", "echo-1", "--csv").exit(0); strings.Count(said, "succeeded") != 2 {
		t.Errorf("got\n%s", said)
	}
	if said := c.open("sweeps", "--json").exit(0); said != "[]\n" {
		t.Errorf("the cluster has %s", said)
	}
	open(t, "resume", "--local", "echo-1").exit(0)
}

// TestNodesOfATask runs trials on nodes that a task names, and refuses a task that names none of
// the cluster.
func TestNodesOfATask(t *testing.T) {
	t.Setenv("MLF_LABELS", "fast, a100")
	c := newTestCluster(t)
	c.start()
	if said := c.open("members").exit(0); !strings.Contains(said, "labels") || !strings.Contains(said, "fast,a100") {
		t.Errorf("members: got\n%s", said)
	}
	if said := c.open("sweep", "--nodes", "n1,label=fast", "--set", "i=1,2", "--",
		"echo", "here").exit(0); strings.Count(said, "| here") != 2 {
		t.Errorf("got\n%s", said)
	}
	want := "no node that the task names can run its trials: m is not one of the nodes that the task names: n1, label=slow\n  try: mlfnode members lists the nodes with their labels"
	if said := c.open("sweep", "--nodes", "n1,label=slow", "--", "true").exit(1); !strings.Contains(said, want) {
		t.Errorf("got\n%s\nwant\n%s", said, want)
	}
	if said := c.open("sweep", "--nodes", "a b", "--", "true").exit(2); !strings.Contains(said,
		`nodes has "a b". Write names as members lists them`) {
		t.Errorf("got\n%s", said)
	}
	if said := c.open("show", "echo-1").exit(0); !strings.Contains(said, "1 CPU, on n1, label=fast") {
		t.Errorf("got\n%s", said)
	}
}

// TestStopOnAFullDisk stops a sweep whose state is on a full disk: what can't be recorded is said,
// and the process ends soon.
func TestStopOnAFullDisk(t *testing.T) {
	for _, signals := range [][]syscall.Signal{{syscall.SIGTERM}, {syscall.SIGINT, syscall.SIGINT}} {
		t.Run(fmt.Sprint(signals), func(t *testing.T) {
			disk := gridtest.SmallDisk(t, "32m", unix.MNT_DETACH)
			t.Setenv("HOME", t.TempDir())
			t.Chdir(t.TempDir())
			cl := open(t, "--local", "--state-dir", filepath.Join(disk, "state"), "sweep", "--set", "i=0:2000", "--",
				"sh", "-c", "echo hello; sleep 0.2")
			cl.see("/2000")
			fill(t, disk)
			cl.see("can't be stored", "disk is full")
			for i, sig := range signals {
				cl.interrupts.deliver(sig, cl.cancel)
				if sig == syscall.SIGINT && i == 0 {
					cl.see("sh-1 can't be paused: ", "sh-1 is paused") // there may be room for so little
				}
			}
			said := cl.exit(exitInterrupted)
			if !strings.Contains(said,
				"the end of the last trials of sh-1 was not recorded; continue with: mlfnode resume sh-1") &&
				!strings.Contains(said, "resume with: mlfnode resume sh-1") { // all could be recorded
				t.Errorf("got\n%s", said)
			}
		})
	}
}

// TestTerminalIsGone closes a terminal under a process that has it open.
func TestTerminalIsGone(t *testing.T) {
	mine, theirs, err := gridtest.Terminal(80, 24)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	fds := terminals{int(theirs.Fd())}
	if fds.hungUp() {
		t.Error("got that an open terminal is gone")
	}
	mine.Close()
	if !fds.hungUp() {
		t.Error("got that a closed terminal is there")
	}
	if (terminals)(nil).hungUp() {
		t.Error("got that a terminal is gone of a process that never had one")
	}
}

// TestDrainSaysWhatRuns drains a node that runs three trials, waits for their end while the master
// is restarted, and then drains one that runs none.
func TestDrainSaysWhatRuns(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	c.open(c.sweep("--detach")...).exit(0)
	c.awaitBegun()
	// history hears of them a little later
	for said, limit := "", time.Now().Add(5*time.Minute); !strings.Contains(said, "(sh-1/0, sh-1/1, sh-1/2)"); {
		if said = c.open("drain", "m").exit(0); time.Now().After(limit) {
			t.Fatalf("got %q, want the three trials", said)
		}
	}
	waits := c.open("drain", "m", "--wait")
	waits.see("still running there: 3 trials")
	c.stop()
	waits.see("the master does not answer; waiting for it (trials continue)")
	c.start()
	c.end()
	if said := waits.exit(0); !strings.HasSuffix(said, "nothing is running on m any more\n") {
		t.Errorf("drain --wait: got %q", said)
	}
	if got := c.open("trials", "sh-1", "--state", "succeeded", "--json").exit(0); strings.Count(got,
		`"state":"succeeded"`) != 3 {
		t.Errorf("drain --wait has ended before the trials: got %s", got)
	}
	for said, limit := "", time.Now().Add(5*time.Minute); !strings.Contains(said,
		"m takes no more trials; no trial is known to be running there"); {
		if said = c.open("drain", "m").exit(0); time.Now().After(limit) {
			t.Fatalf("got %q, want none", said)
		}
	}
}

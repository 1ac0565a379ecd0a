package provision

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid/gridtest"
	"mlfnode/node/durable"
)

// TestLife takes a master and a worker through everything that up and down do to them.
func TestLife(t *testing.T) {
	file := program(t)
	ports := gridtest.FreePorts(t, "127.0.0.61", 3)
	master, worker := newMachine(t, file), newMachine(t, file)
	one := protocol.Request{Desired: &protocol.Desired{Role: "master", Config: settings("127.0.0.61", "one", ports) +
		"worker: false\n"}}
	seen := master.mustAct(protocol.ActionInspect, one).Observed
	if seen.BestService != protocol.ServiceBackground {
		t.Skipf("this machine has %s services, and this test is for one without", seen.BestService)
	}
	if seen.Digest != digestFile(file) || seen.Active || seen.Joined {
		t.Errorf("got %+v of a machine with nothing but the program", seen)
	}
	r := master.mustAct(protocol.ActionStart, one)
	wantDone(t, r, "wrote node.yaml", "started")
	if s := r.Observed; !s.Active || !s.Working || s.Stale || s.Role != "master" ||
		s.Service != protocol.ServiceBackground || s.Running != s.Release {
		t.Errorf("got %+v of a master that was started", s)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "after a reboot") {
		t.Errorf("got notes %q of a node that no systemd starts, want what a reboot does", r.Notes)
	}
	wantDone(t, master.mustAct(protocol.ActionStart, one))

	two := protocol.Request{Desired: &protocol.Desired{
		Role: "worker", Config: settings("127.0.0.62", "two", ports), NATS: ports[1], Gossip: ports[2],
		Seeds: []string{"127.0.0.63:" + strconv.Itoa(ports[0]), "127.0.0.61:" + strconv.Itoa(ports[0])},
	}}
	if r = worker.mustAct(protocol.ActionStart, two); r.Observed.Joined || r.Observed.Active {
		t.Errorf("got %+v of a worker without a token, want it neither joined nor started", r.Observed)
	}
	two.Desired.Token = token(t, master)
	r = worker.mustAct(protocol.ActionStart, two)
	wantDone(t, r, "joined", "started")
	if s := r.Observed; !s.Joined || s.Node != "two" || !s.Active || !strings.Contains(s.Config, "seed: 127.0.0.61:") {
		t.Errorf("got %+v of a worker that was started", s)
	}
	waitFor(t, "the worker works", func() bool { return worker.mustAct(protocol.ActionInspect, two).Observed.Working })
	wantDone(t, worker.mustAct(protocol.ActionStart, two))

	t.Run("trials survive", func(t *testing.T) { survive(t, master, worker, two) })
	t.Run("cut off", func(t *testing.T) { cutOff(t, worker, two) })
	t.Run("supervisor killed", func(t *testing.T) { orphan(t, worker, two) })
	t.Run("forgotten", func(t *testing.T) { forgotten(t, master, worker, two) })
	t.Run("other cluster", func(t *testing.T) { otherCluster(t, master, worker, one, two) })
	t.Run("other role", func(t *testing.T) { otherRole(t, worker, two) })
	t.Run("hung", func(t *testing.T) { hung(t, worker, two) })
	t.Run("another master", func(t *testing.T) {
		waitFor(t, "the worker works", func() bool {
			return worker.mustAct(protocol.ActionInspect, two).Observed.Working
		})
		anotherMaster(t, newMachine(t, file), worker, two)
		two.Desired.Token = token(t, master)
		master.run("forget", "two")
		wantDone(t, worker.mustAct(protocol.ActionStart, two), "wrote node.yaml", "joined", "started")
	})
	t.Run("stop that saves", func(t *testing.T) { saves(t, master, worker, two) })
	t.Run("stop", func(t *testing.T) { stopAll(t, master, worker) })
}

func token(t *testing.T, master *machine) string {
	t.Helper()
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(master.run("token", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	return made.Token
}

// survive restarts the agent in all ways there are, under a trial that goes on.
func survive(t *testing.T, master, worker *machine, two protocol.Request) {
	began := filepath.Join(t.TempDir(), "began")
	c := master.command("sweep", "--config", master.Config(), "--state-dir", master.State(), "--set", "x=1",
		"--", "/bin/sh", "-c", "echo $$ >>"+began+"; exec sleep 600")
	c.Dir = t.TempDir()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	var first []byte
	waitFor(t, "the trial begins", func() bool { first, _ = os.ReadFile(began); return len(first) > 0 })
	same := func(what string) {
		t.Helper()
		waitFor(t, "the worker works after "+what, func() bool {
			return worker.mustAct(protocol.ActionInspect, two).Observed.Working
		})
		now, _ := os.ReadFile(began)
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(first))); err != nil || string(now) != string(first) {
			t.Fatalf("after %s: got programs %q (%v), want the first one, %q, alone and alive", what, now, err, first)
		}
	}
	two.Desired.Restart = true
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "restarted")
	same("a restart")
	two.Desired.Restart = false
	b, err := os.ReadFile(worker.Program())
	if err == nil {
		err = durable.WriteFile(worker.Program(), append(b, "newer"...), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s := worker.mustAct(protocol.ActionInspect, two).Observed; !s.Stale {
		t.Errorf("got stale false after another program was shipped, want true")
	}
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "restarted")
	same("another program")
	two.Desired.Config += "patience: 20s\n"
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "wrote node.yaml", "restarted")
	same("other settings")
	wantDone(t, worker.mustAct(protocol.ActionStart, two))
}

// cutOff kills the program at any moment of a restart.
func cutOff(t *testing.T, worker *machine, two protocol.Request) {
	o := two
	o.Version, o.Root, o.Desired.Restart = protocol.Version, worker.Root, true
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		c := worker.command(protocol.Command, protocol.ActionStart)
		c.Stdin = strings.NewReader(string(line) + "\n")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(rand.IntN(700))*time.Millisecond, func() { _ = c.Process.Kill() })
		_ = c.Wait() // it was killed, or done before
		kill.Stop()
	}
	o.Desired.Restart = false
	if s := worker.mustAct(protocol.ActionStart, o).Observed; !s.Active || s.Stale {
		t.Errorf("got %+v after programs were killed, want an active node", s)
	}
	wantDone(t, worker.mustAct(protocol.ActionStart, o))
	if got := len(agentProcesses(worker.Layout)); got != 1 {
		t.Errorf("got %d agents, want 1", got)
	}
}

// orphan kills the supervisor.
func orphan(t *testing.T, worker *machine, two protocol.Request) {
	own, _ := findSupervisor(worker.Layout)
	pid := own.PID
	if err := own.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the supervisor is gone", func() bool { return !own.Alive() })
	if s := worker.mustAct(protocol.ActionStart, two).Observed; !s.Active ||
		s.Service != protocol.ServiceBackground || s.PID == pid {
		t.Errorf("got %+v after the supervisor was killed, want another one", s)
	}
	if got := len(agentProcesses(worker.Layout)); got != 1 {
		t.Errorf("got %d agents, want 1", got)
	}
}

// forgotten has the master forget the worker, which then joins again.
func forgotten(t *testing.T, master, worker *machine, two protocol.Request) {
	worker.mustAct(protocol.ActionStop, protocol.Request{})
	master.run("forget", "two")
	two.Desired.Token = ""
	if r := worker.mustAct(protocol.ActionStart, two); r.Observed.Joined || r.Observed.Active ||
		r.Observed.Node != "two" {
		t.Errorf("got %+v of a worker that was forgotten, want it not joined", r.Observed)
	}
	two.Desired.Token = token(t, master)
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "joined", "started")
	waitFor(t, "the worker works", func() bool { return worker.mustAct(protocol.ActionInspect, two).Observed.Working })
}

// otherCluster replaces the master under the worker.
func otherCluster(t *testing.T, master, worker *machine, one, two protocol.Request) {
	file := filepath.Join(t.TempDir(), "kept")
	if err := os.Link(master.Program(), file); err != nil {
		t.Fatal(err)
	}
	master.mustAct(protocol.ActionStop, protocol.Request{Purge: true})
	master.ship(file)
	master.mustAct(protocol.ActionStart, one)
	two.Desired.Token = ""
	if r := worker.mustAct(protocol.ActionStart, two); r.Observed.Joined {
		t.Errorf("got %+v of a worker of another cluster, want it not joined", r.Observed)
	}
	two.Desired.Token = token(t, master)
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "joined", "started")
	waitFor(t, "the worker works", func() bool { return worker.mustAct(protocol.ActionInspect, two).Observed.Working })
}

// unchanged fails unless the order is refused for the reason, with the settings left as they are.
func unchanged(t *testing.T, m *machine, o protocol.Request, cause string) {
	t.Helper()
	before, _ := os.ReadFile(m.Config())
	r := m.act(protocol.ActionStart, o)
	if r.Problem == nil || !strings.Contains(r.Problem.Cause, cause) {
		t.Errorf("got %+v, want %q", r.Problem, cause)
	}
	if after, _ := os.ReadFile(m.Config()); string(after) != string(before) ||
		!m.mustAct(protocol.ActionInspect, o).Observed.Working {
		t.Errorf("the node was changed by an order that was refused:\n%s", after)
	}
}

// otherRole has the worker become a master.
func otherRole(t *testing.T, worker *machine, two protocol.Request) {
	wanted := *two.Desired
	wanted.Role = "master"
	unchanged(t, worker, protocol.Request{Desired: &wanted},
		"this machine is the worker two of its cluster, but cluster.yaml makes it a master")
}

// anotherMaster has the worker join another cluster, which it does when that is meant, and come
// back.
func anotherMaster(t *testing.T, other, worker *machine, two protocol.Request) {
	ports := gridtest.FreePorts(t, "127.0.0.65", 3)
	other.mustAct(protocol.ActionStart,
		protocol.Request{Desired: &protocol.Desired{Role: "master", Config: settings("127.0.0.65", "third", ports) +
			"worker: false\n"}})
	wanted := *two.Desired
	wanted.Seeds, wanted.NATS, wanted.Gossip = []string{"127.0.0.65:" + strconv.Itoa(ports[0])}, ports[1], ports[2]
	wanted.Token = token(t, other)
	unchanged(t, worker, protocol.Request{Desired: &wanted},
		"is the node two of another cluster, whose master is at 127.0.0.61:")
	wanted.TakeOver = true
	wantDone(t, worker.mustAct(protocol.ActionStart, protocol.Request{Desired: &wanted}), "wrote node.yaml",
		"joined", "started")
	waitFor(t, "the worker works", func() bool { return worker.mustAct(protocol.ActionInspect, two).Observed.Working })
	r := worker.mustAct(protocol.ActionStop, protocol.Request{Leave: true})
	if r.Observed.Joined {
		t.Errorf("got %+v after it has left, want it not joined", r.Observed)
	}
}

// hung stops a node whose agent does nothing any more.
func hung(t *testing.T, worker *machine, two protocol.Request) {
	for _, p := range agentProcesses(worker.Layout) {
		if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	r := worker.mustAct(protocol.ActionStop, protocol.Request{})
	if took := time.Since(began); len(r.Observed.Leftovers) > 0 || took > 3*stopTimeout {
		t.Errorf("got %q left after %v, want nothing after some seconds", r.Observed.Leftovers, took)
	}
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "started")
}

// saves stops a worker whose trial takes longer to save its state than a node that hangs is given.
func saves(t *testing.T, master, worker *machine, two protocol.Request) {
	dir, project := t.TempDir(), t.TempDir()
	script := fmt.Sprintf(`trap 'sleep %d; echo saved >"$MLF_CHECKPOINT/state"; echo >%s/saved; exit 0' TERM; echo >%[2]s/began; while :; do sleep 0.1; done`,
		int(2*stopTimeout.Seconds()), dir)
	text := fmt.Sprintf("name: saves\ntasks: {save: {command: [/bin/sh, -c, %q], checkpoint: {grace: 1m}}}\n", script)
	if err := os.WriteFile(filepath.Join(project, "project.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the worker works", func() bool { return worker.mustAct(protocol.ActionInspect, two).Observed.Working })
	master.run("sweep", "--detach", project)
	exists := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	waitFor(t, "the trial begins", func() bool { return exists("began") })
	if r := worker.mustAct(protocol.ActionStop, protocol.Request{}); len(r.Observed.Leftovers) > 0 || !exists("saved") {
		t.Errorf("got %q left, saved %t; want the state saved and nothing left", r.Observed.Leftovers, exists("saved"))
	}
	stored, err := filepath.Glob(filepath.Join(master.State(), "snapshots", "*", "*", "1.json"))
	if len(stored) != 1 {
		t.Errorf("got %q, %v stored on the master, want a snapshot", stored, err)
	}
	if _, err := os.Stat(filepath.Join(worker.State(), "stopping")); !os.IsNotExist(err) {
		t.Errorf("got %v for the sign of the stop, want it gone", err)
	}
	master.run("cancel", "last")
	wantDone(t, worker.mustAct(protocol.ActionStart, two), "started")
}

func stopAll(t *testing.T, master, worker *machine) {
	began := time.Now()
	r := worker.mustAct(protocol.ActionStop, protocol.Request{})
	if wantDone(t, r, "stopped"); len(r.Observed.Leftovers) > 0 || r.Observed.Active ||
		time.Since(began) > 6*time.Second {
		t.Errorf("got %+v after %v, want nothing left within 5 s", r.Observed, time.Since(began))
	}
	wantDone(t, worker.mustAct(protocol.ActionStop, protocol.Request{}))
	r = master.mustAct(protocol.ActionStop, protocol.Request{Purge: true})
	wantDone(t, r, "stopped", "removed "+master.Root)
	if _, err := os.Stat(master.Root); !os.IsNotExist(err) {
		t.Errorf("got %v for the root folder after a purge, want it gone", err)
	}
	for _, m := range []*machine{master, worker} {
		if left := processes(m.Layout); len(left) > 0 {
			t.Errorf("got processes %+v, want none left", left)
		}
	}
}

func TestStartProblems(t *testing.T) {
	file := program(t)
	m := newMachine(t, file)
	ports := gridtest.FreePorts(t, "127.0.0.64", 3)
	l, err := net.Listen("tcp", "127.0.0.64:"+strconv.Itoa(ports[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	config := settings("127.0.0.64", "m", ports)
	tests := []struct {
		name string
		want protocol.Desired
		text string
	}{
		{"port", protocol.Desired{Role: "master", Config: config},
			"port " + strconv.Itoa(ports[1]) + "/tcp is held by process " + strconv.Itoa(os.Getpid()) + " ("},
		{"settings", protocol.Desired{Role: "master", Config: "cpus: many\n"}, m.Config() + ", cpus"},
		{"seed", protocol.Desired{Role: "worker", Config: config,
			Seeds: []string{"127.0.0.64:" + strconv.Itoa(ports[0])}},
			"this machine can't reach the master's port " + strconv.Itoa(ports[0]) + "/tcp at 127.0.0.64 (refused)"},
		{"role", protocol.Desired{Role: "king"}, "names no role"},
	}
	for _, tt := range tests {
		r := m.act(protocol.ActionStart, protocol.Request{Desired: &tt.want})
		if r.Problem == nil || !strings.Contains(r.Problem.Cause, tt.text) {
			t.Errorf("%s: got %+v, want %q", tt.name, r.Problem, tt.text)
		}
	}
	if left := processes(m.Layout); len(left) > 0 {
		t.Errorf("got processes %+v, want none", left)
	}
	if r := m.act("dance", protocol.Request{}); r.Problem == nil ||
		!strings.Contains(r.Problem.Cause, `knows no action "dance"`) {
		t.Errorf("got %+v for an unknown action", r.Problem)
	}
}

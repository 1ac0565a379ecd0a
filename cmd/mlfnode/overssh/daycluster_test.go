package overssh

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// onMachine types a command of the mlfnode that up has put on a machine, without flags.
func (d *day) onMachine(t *testing.T, h *hosts.Host, args ...string) (shown string) {
	t.Helper()
	login := &person{t: t, at: h, name: "ada"}
	r := h.Run(h.Accounts.As(hosts.DefaultUser, h.Program(filepath.Join(home(h), "ML/bin/mlfnode"), args...)))
	shown = r.Stdout + r.Stderr
	t.Logf("%s@%s$ ML/bin/mlfnode %q   (exit code %d)\n%s", login.name, h.Name, args, r.Code, shown)
	if r.Code != 0 {
		t.Fatalf("on %s: mlfnode %q: exit code %d\n%s", h.Name, args, r.Code, shown)
	}
	return shown
}

// testTokens makes tokens for a colleague, on the laptop and on the master's machine.
func testTokens(t *testing.T, d *day) {
	ada, bert := d.ada(t), d.bert(t)
	var token struct{ Token string }
	ada.asks(&token, "token", "--role", "operator", "--note", "bert's laptop")
	wantAll(t, ada.does("token", "list"), " operator ", "bert's laptop")
	bert.env = append(bert.env, "MLF_CLUSTER_TOKEN="+token.Token)
	wantAll(t, bert.does("token", "use", "--master", "host1"), "commands now use the cluster at host1:7420")
	bert = d.bert(t)
	wantLine(t, bert.does("sweeps"), "bug-1")
	bert.awaitsMembers(3)
	wantAll(t, bert.exits(1, "token"), "admin")
	wantAll(t, d.onMachine(t, d.machines[0], "token", "--role", "viewer"), "mlfnode token use --master ")
	wantLine(t, d.onMachine(t, d.machines[0], "members"), "host2", "alive")
	wantLine(t, d.onMachine(t, d.machines[0], "sweeps"), "bug-1")
}

// testTwoPeople has two people share the cluster: the colleague gets the next slot, and a higher
// priority the one after that.
func testTwoPeople(t *testing.T, d *day) {
	ada, bert := d.ada(t), d.bert(t)
	ada.does(append([]string{"sweep", "-d"}, d.gated("mine", 8)...)...)
	ada.awaits("mine", "running", 4)
	bert.does(append([]string{"sweep", "-d"}, d.gated("his", 2)...)...)
	d.open(t, "mine", 0, 1)
	ada.awaits("his", "running", 1)
	bert.does(append([]string{"sweep", "-d", "--priority", "5"}, d.gated("urgent", 1)...)...)
	d.open(t, "mine", 1, 2)
	ada.awaits("urgent", "running", 1)
	if mine, his := ada.trialsOf("mine", "running"), ada.trialsOf("his", "running"); len(mine) != 2 || len(his) != 1 {
		t.Errorf("got %+v of ada and %+v of bert, want 2 and 1", mine, his)
	}
	sweeps := bert.does("sweeps")
	wantAll(t, sweeps, " ada ", " bert ")
	own := bert.does("sweeps", "--mine")
	wantAll(t, own, "his", "urgent")
	wantNone(t, own, "mine", "bug-1")
	d.open(t, "his", 0, 2)
	d.open(t, "urgent", 0, 1)
	bert.awaits("his", "succeeded", 2)
	bert.awaits("urgent", "succeeded", 1)
}

// testFailures drains a node, kills agents, and disconnects the master from the network: the four
// trials that run go on.
func testFailures(t *testing.T, d *day) {
	ada := d.ada(t)
	ada.awaits("mine", "running", 4)
	wantAll(t, ada.does("drain", "host2", "--reason", "new disk"),
		"host2 takes no more trials; still running there: 2 trials (")
	wantLine(t, ada.does("members"), "host2", "alive, drained", "new disk")
	ada.does("undrain", "host2")
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if shown := ada.does("members"); strings.Contains(shown, "drained") {
			return errors.New(shown)
		}
		return nil
	})
	kill(t, d.machines[1], "bin/mlfnode join ")
	ada.does("sweeps")
	ada.awaitsMembers(3)
	kill(t, d.machines[0], "bin/mlfnode master ")
	wantNone(t, ada.does("sweeps"), "level=WARN")
	ada.awaitsMembers(3)
	wantFirst(t, ada.awaits("mine", "running", 4))
	d.machines[0].Network.Disconnect()
	wait(7 * time.Second)
	d.machines[0].Network.Reconnect()
	ada.awaitsMembers(3)
	wantFirst(t, ada.awaits("mine", "running", 4))
}

// testUpgradeAndReboot gives all machines another program under running trials, and reboots one of
// them.
func testUpgradeAndReboot(t *testing.T, d *day) {
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	d.laptop.WriteFile("bin/mlfnode", string(append(text, "another program"...)))
	d.program = filepath.Join(home(d.laptop.Host), "bin/mlfnode")
	if err := os.Chmod(d.program, 0o755); err != nil {
		t.Fatal(err)
	}
	ada := d.ada(t)
	out := ada.does("restart")
	for _, h := range d.machines[:3] {
		wantLine(t, out, h.Name, " mlfnode (", "restarted")
	}
	d.bert(t).does("sweeps")
	running := ada.awaits("mine", "running", 4)
	wantFirst(t, running)
	d.machines[1].PowerCut()
	d.machines[1].Boot()
	wantLine(t, ada.does("up", "-f"), "host2", "started")
	d.open(t, "mine", 2, 8)
	for _, tr := range ada.awaits("mine", "succeeded", 8) {
		for _, r := range running {
			if r.Index == tr.Index && (r.Node == "host2") != (tr.Attempts > 1) {
				t.Errorf("trial %d, which ran on %s when host2 lost its power, took %d attempts", tr.Index,
					r.Node, tr.Attempts)
			}
		}
	}
}

// testEvening takes the cluster down while trials of two people run, and switches all machines off
// overnight.
func testEvening(t *testing.T, d *day) {
	ada, bert := d.ada(t), d.bert(t)
	ada.does(append([]string{"sweep", "-d"}, d.gated("late", 2)...)...)
	bert.does(append([]string{"sweep", "-d"}, d.gated("later", 2)...)...)
	ada.awaits("late", "running", 2)
	ada.awaits("later", "running", 2)
	wantAll(t, ada.does("down"), "host2: note: 2 trials were running, which begin again when there is a node for them",
		"host3: note: 2 trials were running")
	for _, h := range d.machines[:3] {
		h.PowerCut()
		h.Boot()
	}
	d.open(t, "late", 0, 2)
	d.open(t, "later", 0, 2)
	wantStates(t, ada.does("up", "-f"), 3, "started")
	ada.awaits("late", "succeeded", 2)
	bert.awaits("later", "succeeded", 2)
}

// clusterFile is where ada has the cluster.
func (d *day) clusterFile() string { return filepath.Join(home(d.laptop.Host), "cluster.yaml") }

// edit changes cluster.yaml and gives what it was.
func (d *day) edit(t *testing.T, change func(string) string) (before string) {
	t.Helper()
	text, err := os.ReadFile(d.clusterFile())
	if err != nil {
		t.Fatal(err)
	}
	now := change(string(text))
	if now == string(text) {
		t.Fatalf("nothing is changed in\n%s", now)
	}
	d.laptop.WriteFile("cluster.yaml", now)
	return string(text)
}

// testSwappedRoles checks that swapped roles are refused before anything is changed, without advice
// that would cost the results.
func testSwappedRoles(t *testing.T, d *day) {
	ada := d.ada(t)
	before := d.edit(t, func(string) string {
		return "root: ML\nproject: chainer\nhosts:\n  - {address: host1, roles: [worker]}\n  - {address: host2, roles: [master]}\n  - {address: host3, roles: [worker]}\n"
	})
	for _, args := range [][]string{{"up", "-f", "--dry-run"}, {"up", "-f"}} {
		out := ada.exits(1, args...)
		wantAll(t, out, "nothing was changed",
			"leave it the master, because it keeps the results; to move them to another machine: mlfnode move-master HOST")
		wantNone(t, out, "down host1 --purge")
	}
	d.laptop.WriteFile("cluster.yaml", before)
	wantStates(t, ada.does("up", "-f"), 3, "unchanged")
}

// testAnotherMaster moves the master; the colleague follows.
func testAnotherMaster(t *testing.T, d *day) {
	ada, bert := d.ada(t), d.bert(t)
	wantLine(t, ada.does("move-master", "host2"), "host2", "moved the state of host1")
	wantLine(t, ada.does("results", "train-1", "--best", "1"), "3*")
	wantLine(t, ada.does("status"), "host2", "master", "working")
	bert.does("context", "use", "host1", "--master", "host2")
	wantAll(t, bert.does("sweeps", "--mine"), "his", "later")
}

// testSecondCluster writes another cluster.yaml for a machine that is taken, and takes it back:
// access to the first cluster stays.
func testSecondCluster(t *testing.T, d *day) {
	ada := d.ada(t)
	d.laptop.WriteFile("mine.yaml", "root: OTHER\nhosts: [{address: host2, roles: [master]}]\n")
	wantAll(t, ada.exits(1, "up", "-f", "mine.yaml"), "port 7422/tcp is held by ",
		"set ports.gossip under settings in cluster.yaml")
	ada.does("down", "-f", "mine.yaml")
	wantLine(t, ada.does("members"), "host2", "alive")
	ada.does("down", "-f", "mine.yaml", "--purge")
	wantLine(t, ada.does("members"), "host2", "alive")
	ada.does("context")
}

// testMoreAndLess adds a machine, which takes trials immediately, and takes it out while it runs
// some.
func testMoreAndLess(t *testing.T, d *day) {
	ada := d.ada(t)
	four := d.machines[3]
	d.forget(four)
	before := d.edit(t, func(text string) string {
		return strings.TrimRight(text, "\n") + "\n  - address: host4\n    roles: [worker]\n"
	})
	wantLine(t, ada.does("up", "-f", "--accept-new"), "host4", "joined", "started")
	ada.does(append([]string{"sweep", "-d"}, d.gated("wide", 6)...)...)
	there := 0
	for _, tr := range ada.awaits("wide", "running", 6) {
		if tr.Node == "host4" {
			there++
		}
	}
	if there != 2 {
		t.Errorf("%d trials run on the new machine, want 2", there)
	}
	d.laptop.WriteFile("cluster.yaml", before)
	wantAll(t, ada.does("status"),
		"host4 was brought up before and is no longer in cluster.yaml; mlfnode up -f stops it, or: mlfnode down host4")
	out := ada.does("up", "-f")
	wantLine(t, out, "host4", "stopped")
	wantAll(t, out, "host4: note: 2 trials were running",
		"host4: note: it is no longer in the cluster, and was stopped")
	wantNone(t, ada.does("members"), "host4")
	d.runsNothing(t, four)
	d.open(t, "wide", 0, 6)
	for _, tr := range ada.awaits("wide", "succeeded", 6) {
		if tr.Node == "host4" {
			t.Errorf("trial %d ended on the machine that was taken out", tr.Index)
		}
	}
}

// runsNothing waits until nothing runs on a machine.
func (d *day) runsNothing(t *testing.T, h *hosts.Host) {
	t.Helper()
	hosts.WaitFor(t, hosts.Timeout, func() error { return nothingRuns(h) })
}

// testForgotten stops a machine, has the master forget it, and takes it back; first from the
// laptop, then on the master's machine.
func testForgotten(t *testing.T, d *day) {
	ada := d.ada(t)
	for _, forget := range []func(){
		func() { ada.does("forget", "host3") },
		func() { d.onMachine(t, d.machines[1], "forget", "host3") },
	} {
		wantLine(t, ada.does("down", "host3"), "host3", "stopped")
		d.runsNothing(t, d.machines[2])
		forget()
		wantNone(t, ada.does("members"), "host3")
		wantLine(t, ada.does("up", "-f"), "host3", "joined", "started")
		ada.awaitsMembers(2)
	}
}

// testSmallerCluster makes a cluster of fewer machines with flags: what is said about the old file
// ends the others, and no more.
func testSmallerCluster(t *testing.T, d *day) {
	ada := d.ada(t)
	out := ada.does("up", "-a", "host2", "-r", "ML", "-m", "1", "-w", "1")
	const hint = "mlfnode down host1 host3 -f cluster.yaml.old"
	wantAll(t, out,
		"the previous cluster.yaml is now cluster.yaml.old; the new one does not have host1, host3; stop what runs there with: "+hint+"\n")
	wantLine(t, out, "host2", "unchanged")
	wantLine(t, ada.does(strings.Fields(hint)[1:]...), "host3", "stopped")
	d.runsNothing(t, d.machines[2])
	ada.awaitsMembers(1)
	wantAll(t, ada.does("sweep", "--set", "i=0:2", "--", "echo", "{i}"), "2 of 2 succeeded")
}

// testPurged removes everything, after a question.
func testPurged(t *testing.T, d *day) {
	ada := d.ada(t)
	for _, answer := range []string{"no", "yes"} {
		down := ada.onTerminal("down", "--purge")
		down.Expect("this removes for good:")
		down.Expect("host2: ")
		down.Expect("sweeps with all results")
		down.Expect("Remove it? (yes/no)")
		down.Type(answer)
		if answer == "no" {
			wantAll(t, ada.ends(down, 1), "nothing was changed")
			wantLine(t, ada.does("members"), "host2", "alive")
			ada.does("results", "train-1")
			continue
		}
		wantAll(t, ada.ends(down, 0), "stopped, removed")
	}
	ada.does("down", "-f", "cluster.yaml.old", "--purge", "--yes")
	d.nothingLeft("ML")
	wantAll(t, ada.exits(1, "members"), "no node of a cluster is running on this machine")
}

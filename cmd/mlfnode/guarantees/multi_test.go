package guarantees

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// clusterSize is the number of hosts of the scenarios below.
const clusterSize = 5

// fault is one way to break a cluster while a sweep runs, and to repair it again.
type fault struct {
	name   string
	inject func(p *scenario)
}

// outage is how long something stays broken that does not repair itself: longer than it takes to be
// called dead.
func outage() time.Duration { return scale(6*time.Second, 30*time.Second) }

var agentFaults = []fault{
	{"kill -9 of a worker", func(p *scenario) {
		h := p.busyWorker()
		h.Agent.Kill()
		p.finish(settle)
		p.Relaunch(h)
	}},
	{"kill -9 of a worker that starts again", func(p *scenario) {
		h := p.busyWorker()
		h.Agent.Kill()
		p.Relaunch(h)
	}},
	{"kill -9 of the master", func(p *scenario) {
		p.Master.Agent.Kill()
		wait(time.Second)
		p.Relaunch(p.Master)
	}},
	{"kill -9 of the master and a worker", func(p *scenario) {
		h := p.busyWorker()
		h.Agent.Kill()
		p.Master.Agent.Kill()
		wait(time.Second)
		p.Relaunch(p.Master)
		p.Relaunch(h)
	}},
	{"power cut of a worker", func(p *scenario) {
		h := p.busyWorker()
		h.PowerCut()
		p.finish(settle)
		h.Boot()
		p.Relaunch(h)
	}},
	{"a worker that pauses", func(p *scenario) {
		h := p.busyWorker()
		h.Processes.Suspend()
		wait(outage())
		h.Processes.Continue()
	}},
	{"a master that pauses", func(p *scenario) {
		p.Master.Processes.Suspend()
		wait(outage())
		p.Master.Processes.Continue()
	}},
	{"a worker's clock an hour ahead", func(p *scenario) {
		h := p.busyWorker()
		h.Clock.SetOffset(time.Hour)
		p.finish(settle)
		h.Clock.SetOffset(0)
	}},
	{"the master's clock an hour ahead and back", func(p *scenario) {
		p.Master.Clock.SetOffset(time.Hour)
		p.ledger.waitForStarted(p.count * 3 / 4)
		p.Master.Clock.SetOffset(-time.Hour)
		p.finish(settle)
		p.Master.Clock.SetOffset(0)
	}},
}

var networkFaults = []fault{
	{"partition of a worker and the master", func(p *scenario) {
		h := p.busyWorker()
		h.Network.Partition(p.Master)
		wait(outage())
		h.Network.Heal(p.Master)
	}},
	{"partition one way, from a worker", func(p *scenario) {
		h := p.busyWorker()
		h.Network.CutTo(p.Master)
		wait(outage())
		h.Network.Heal(p.Master)
	}},
	{"partition one way, from the master", func(p *scenario) {
		h := p.busyWorker()
		p.Master.Network.CutTo(h)
		wait(outage())
		h.Network.Heal(p.Master)
	}},
	{"a worker off the network", func(p *scenario) {
		h := p.busyWorker()
		h.Network.Disconnect()
		wait(outage())
		h.Network.Reconnect()
	}},
	{"20 % loss and 200 ms delay", func(p *scenario) {
		// each way: a fifth is lost there and back
		p.SetLinkConditions(hosts.LinkConditions{Loss: 0.1, Delay: 100 * time.Millisecond})
		p.finish(settle)
		p.SetLinkConditions(hosts.LinkConditions{})
	}},
	{"UDP blocked", func(p *scenario) {
		p.SetLinkConditions(hosts.LinkConditions{NoUDP: true})
		p.finish(settle)
		p.allAlive()
		p.SetLinkConditions(hosts.LinkConditions{})
	}},
	{"frames that arrive twice", func(p *scenario) {
		p.SetLinkConditions(hosts.LinkConditions{Duplicate: 0.3})
		p.finish(settle)
		p.SetLinkConditions(hosts.LinkConditions{})
	}},
}

var powerFaults = []fault{
	{"power cut of the master", func(p *scenario) {
		p.Master.PowerCut()
		wait(time.Second)
		p.Master.Boot()
		p.Relaunch(p.Master)
	}},
	{"power cut of everything", func(p *scenario) {
		for _, h := range p.Hosts {
			h.PowerCut()
		}
		for _, h := range p.Hosts {
			h.Boot()
			p.Relaunch(h)
		}
	}},
}

var diskFaults = []fault{
	{"disk of a worker full", func(p *scenario) {
		h := p.busyWorker()
		h.Disk.Fill()
		wait(outage())
		h.Disk.Free()
	}},
	{"disk of the master full", func(p *scenario) {
		p.Master.Disk.Fill()
		wait(outage())
		p.Master.Disk.Free()
	}},
}

// smallDisk holds the state of a node with room for a sweep.
const smallDisk = "96m"

// TestClusterNoLostTrial breaks a cluster of five hosts in one way after the other, each while a
// sweep runs, and counts: one result for each index, whole logs, and no process left.
func TestClusterNoLostTrial(t *testing.T) {
	t.Parallel()
	for _, group := range []struct {
		name    string
		options hosts.Options
		faults  []fault
		retries int
	}{
		{"agents", hosts.Options{}, agentFaults, 0},
		{"network", hosts.Options{}, networkFaults, 0},
		{"power, and what was not synced is lost", hosts.Options{Disk: "256m", Lossy: true}, powerFaults, 0},
		{"disks", hosts.Options{Disk: smallDisk}, diskFaults, 8}, // a trial that can't write fails
	} {
		t.Run(strings.ReplaceAll(group.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			p := newScenario(t, clusterSize, group.options)
			p.retries = group.retries
			for _, f := range group.faults {
				began := time.Now()
				t.Logf("%s:", f.name)
				p.submitWriters(p.Hosts[1], 50, 8, 100*time.Millisecond)
				p.ledger.waitForStarted(15)
				f.inject(p)
				p.checkAll()
				p.allAlive()
				t.Logf("%s: whole after %v", f.name, time.Since(began).Round(time.Millisecond))
			}
		})
	}
}

// TestClusterOneResult pauses a host until its trials run elsewhere, and lets it go on: what ends
// late is superseded.
func TestClusterOneResult(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	open := p.submitGated(p.Master, 4)
	p.ledger.waitForStarted(4)
	h := p.busyWorker()
	lost := p.ledger.running(h.Name)
	p.waitForReported(4)
	h.Processes.Suspend()
	p.ledger.waitForElsewhere(lost, h.Name, time.Now(), hosts.Timeout)
	open()
	p.finish(settle)
	h.Processes.Continue()
	p.checkAll()
	c := p.client(p.Master)
	for _, index := range lost {
		attempts, err := c.Trials().Attempts(t.Context(), grid.TrialID{Sweep: p.sweep, Index: index})
		if err != nil {
			t.Fatal(err)
		}
		named := slices.ContainsFunc(attempts, func(a api.Attempt) bool {
			return a.Outcome != "result" && string(a.Node) == h.Name && strings.Contains(a.Reason, h.Name)
		})
		if !named {
			t.Errorf("trial %d: no attempt says that it was lost with %s: %+v", index, h.Name, attempts)
		}
	}
}

// TestClusterTrueState ends programs in every way there is, on another host than the master and the
// one that asks.
func TestClusterTrueState(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	p.Master.Must("drain", "host1")
	p.Master.Must("drain", "host3")
	cases := []struct {
		how    string
		script string
		state  grid.State
		code   int
		reason string
	}{
		{"success", "exit 0", grid.Succeeded, 0, ""},
		{"exit code", "echo last words >&2; exit 3", grid.Failed, 3, "last words"},
		{"signal", "kill -SEGV $$", grid.Failed, 139, "SIGSEGV"},
		{"kill", "kill -KILL $$", grid.Failed, 137, "SIGKILL"},
	}
	for _, c := range cases {
		r := p.Hosts[2].Try("sweep", "-q", "--retries", "0", "--", "sh", "-c", c.script)
		p.sweep = "last"
		all := p.trials(p.client(p.Master))
		if len(all) != 1 {
			t.Fatalf("%s: got %d trials, want 1; %s", c.how, len(all), r.Stderr)
		}
		tr := all[0]
		if tr.State != c.state || tr.ExitCode == nil || *tr.ExitCode != c.code ||
			!strings.Contains(tr.Reason, c.reason) || tr.Node != "host2" {
			t.Errorf("%s: got %s on %s, code %v, reason %q; want %s on host2, %d, …%s…", c.how, tr.State, tr.Node,
				tr.ExitCode, tr.Reason, c.state, c.code, c.reason)
		}
	}
}

// TestClusterCrashLimit has a trial take down each host that runs it: it fails, with the reason,
// and the others end.
func TestClusterCrashLimit(t *testing.T) {
	t.Parallel()
	p := newScenario(t, clusterSize, hosts.Options{})
	p.Master.Must("drain", "host1")
	down := map[string]bool{}
	deadly := p.newFile("deadly")
	p.submit(p.Master, 6, `mark=$1 ledger=$2 deadly=$3
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $$ begin" >>"$ledger"
case $MLF_TRIAL in */0) echo "$HOSTNAME" >>"$deadly"; sleep 300 ;; esac
sleep 0.5`, deadly)
	hosts.WaitFor(t, 2*time.Minute, func() error {
		for _, r := range p.ledger.lines() {
			if h := p.Host(r.host); r.index == 0 && !down[r.host] {
				down[r.host] = true
				h.PowerCut()
			}
		}
		for _, tr := range p.trials(p.client(p.Master)) {
			if tr.Index == 0 && tr.State == grid.Failed {
				return nil
			}
		}
		return fmt.Errorf("the trial has taken down %d hosts and has not failed", len(down))
	})
	// if the first went so fast that nobody heard of the trial, it counts from the second on
	if len(down) < 3 || len(down) > 4 {
		t.Errorf("the trial took down %d hosts, want 3", len(down))
	}
	p.finish(settle)
	for _, tr := range p.trials(p.client(p.Master)) {
		if want := tr.Index != 0; (tr.State == grid.Succeeded) != want {
			t.Errorf("trial %d is %s: %s", tr.Index, tr.State, tr.Reason)
		}
		if tr.Index == 0 && !strings.Contains(tr.Reason, "3 nodes") {
			t.Errorf("its reason is %q, want the number of nodes in it", tr.Reason)
		}
	}
}

// TestClusterNoOrphan ends trials in every way but their own, and looks for what they have started.
func TestClusterNoOrphan(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	begin := func() {
		p.submitWriters(p.Master, 4, 1000, 100*time.Millisecond)
		p.ledger.waitForStarted(4)
	}
	begin()
	p.Hosts[1].Must("cancel", string(p.sweep))
	p.checkNothingRuns()

	begin() // an agent that dies for good
	h := p.busyWorker()
	h.Agent.Kill()
	hosts.WaitFor(t, orphanLimit, func() error {
		if left := marked(h, p.mark); left > 0 {
			return fmt.Errorf("%d processes of trials are left on %s without its agent", left, h.Name)
		}
		return nil
	})
	p.Relaunch(h)
	p.allAlive()
	p.Hosts[1].Must("cancel", string(p.sweep))
	p.checkNothingRuns()

	begin() // of a worker that is called dead and its replacements, one side stops
	h = p.busyWorker()
	lost := p.ledger.running(h.Name)
	h.Network.Partition(p.Master)
	for _, other := range p.Hosts {
		h.Network.Partition(other)
	}
	p.ledger.waitForElsewhere(lost, h.Name, time.Now(), hosts.Timeout)
	for _, other := range p.Hosts {
		h.Network.Heal(other)
	}
	hosts.WaitFor(t, orphanLimit, func() error {
		for _, index := range lost {
			on := 0
			for _, other := range p.Hosts {
				if marked(other, fmt.Sprintf("--i=%d", index)) > 0 {
					on++
				}
			}
			if on != 1 {
				return fmt.Errorf("trial %d runs on %d hosts, want one", index, on)
			}
		}
		return nil
	})
	p.Hosts[1].Must("cancel", string(p.sweep))
	p.checkNothingRuns()

	begin() // a node that leaves
	h = p.busyWorker()
	h.Agent.Signal(unix.SIGTERM)
	if code := h.Agent.Exit(hosts.Timeout); code != 0 {
		t.Errorf("an agent that was told to leave: got exit code %d, want 0", code)
	}
	if left := h.Processes.List(); len(left) > 0 {
		t.Errorf("a node has left, and on its host run %v", left)
	}
	p.Hosts[0].Must("cancel", string(p.sweep))
	p.checkNothingRuns()
}

// marked counts processes on a host with the mark in their command line.
func marked(h *hosts.Host, mark string) int {
	n := 0
	for _, p := range h.Processes.List() {
		if strings.Contains(p.Command, mark) {
			n++
		}
	}
	return n
}

// TestClusterNoLostOutput cuts a worker off from the master while its trial prints, kills the
// master too, and reads all bytes.
func TestClusterNoLostOutput(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	p.Master.Must("drain", "host1")
	const lines = 20000
	p.lines = 0
	p.submit(p.Hosts[2], 4, `ledger=$2
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $$ begin" >>"$ledger"
for ((n = 0; n < 20000; n++)); do printf '%06d %s\n' $n "0123456789012345678901234567890123456789"; ((n % 1000)) || sleep 0.3; done
printf 'no newline'`)
	p.ledger.waitForStarted(4)
	for _, h := range p.Hosts[1:] {
		h.Network.Partition(p.Master)
	}
	p.Master.Agent.Kill()
	wait(2 * time.Second) // shorter than it takes to be called dead by a master that does not run
	p.Relaunch(p.Master)
	for _, h := range p.Hosts[1:] {
		h.Network.Heal(p.Master)
	}
	p.finish(settle)
	var want strings.Builder
	for n := range lines {
		fmt.Fprintf(&want, "%06d 0123456789012345678901234567890123456789\n", n)
	}
	want.WriteString("no newline")
	c := p.client(p.Master)
	for index := range int64(4) {
		if got := output(t, c, index)["stdout"]; got != want.String() {
			t.Errorf("trial %d: got %d bytes of output, want %d", index, len(got), want.Len())
		}
	}
}

// TestClusterRunsChainer runs the example project on five hosts, asked from a worker, with its
// output shown there.
func TestClusterRunsChainer(t *testing.T) {
	t.Parallel()
	p := newScenario(t, clusterSize, hosts.Options{})
	shown := p.Hosts[3].Must("sweep", "chainer", "echo")
	if !strings.Contains(shown, "succeeded") || !strings.Contains(shown, "chainer-1/0 | ") {
		t.Errorf("got\n%s\nwant the output of trials and the table", tail(shown))
	}
	p.sweep = "chainer-1"
	on := map[string]bool{}
	for _, tr := range p.trials(p.client(p.Master)) {
		if tr.State != grid.Succeeded {
			t.Errorf("trial %d is %s: %s", tr.Index, tr.State, tr.Reason)
		}
		on[string(tr.Node)] = true
	}
	if len(on) < 2 {
		t.Errorf("all trials ran on %v, want several hosts", on)
	}
}

package guarantees

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
)

// absence is something that is away for a while and comes back, with all its programs alive.
type absence struct {
	name  string
	times int
	away  func(p *scenario, worker *hosts.Host)
}

// during has a fault last for so long.
func during(begin, end func(p *scenario, worker *hosts.Host), span time.Duration) func(*scenario, *hosts.Host) {
	return func(p *scenario, worker *hosts.Host) {
		begin(p, worker)
		wait(span)
		end(p, worker)
	}
}

func masterLink(span time.Duration) func(*scenario, *hosts.Host) {
	return during(func(p *scenario, _ *hosts.Host) { p.Master.Network.Disconnect() },
		func(p *scenario, _ *hosts.Host) { p.Master.Network.Reconnect() }, span)
}

// masterCable is masterLink with a machine that sees that its cable is out.
func masterCable(span time.Duration) func(*scenario, *hosts.Host) {
	carrier := func(p *scenario, state string) {
		p.t.Helper()
		if r := p.Master.Run(exec.Command("ip", "link", "set", "eth0", "carrier", state)); r.Code != 0 {
			p.t.Fatalf("carrier %s: %s", state, r.Stderr)
		}
	}
	return during(func(p *scenario, _ *hosts.Host) { carrier(p, "off") }, func(p *scenario, _ *hosts.Host) {
		carrier(p, "on")
	}, span)
}

func workerLink(span time.Duration) func(*scenario, *hosts.Host) {
	return during(func(_ *scenario, w *hosts.Host) { w.Network.Disconnect() },
		func(_ *scenario, w *hosts.Host) { w.Network.Reconnect() }, span)
}

// toMaster loses what a worker sends to the master. What it sent last is sent again up to some
// seconds after the end, by TCP's rules, so the end waits for that.
func toMaster(span time.Duration) func(*scenario, *hosts.Host) {
	return during(func(p *scenario, w *hosts.Host) { w.Network.CutTo(p.Master) }, reunite, span)
}

func fromMaster(span time.Duration) func(*scenario, *hosts.Host) {
	return during(func(p *scenario, w *hosts.Host) { p.Master.Network.CutTo(w) }, reunite, span)
}

// reunite restores both directions, and waits until the worker has obeyed an order that the master
// gave afterwards.
func reunite(p *scenario, w *hosts.Host) {
	p.t.Helper()
	w.Network.Heal(p.Master)
	c := p.client(p.Master)
	for _, word := range []string{"drain", "undrain"} {
		p.Master.Must(word, w.Name)
		hosts.WaitFor(p.t, hosts.Timeout, func() error {
			all, err := c.Members().List(p.t.Context())
			if err != nil {
				return err
			}
			for _, m := range all {
				if string(m.Node) == w.Name && m.Drained == (word == "drain") {
					return nil
				}
			}
			return fmt.Errorf("%s has not obeyed: %s; members: %+v", w.Name, word, all)
		})
	}
}

// flapping takes a link down and up again, once in a second.
func flapping(link func(time.Duration) func(*scenario, *hosts.Host), span time.Duration) func(*scenario, *hosts.Host) {
	return func(p *scenario, worker *hosts.Host) {
		for over := time.Now().Add(span); time.Now().Before(over); wait(time.Second / 2) {
			link(time.Second/2)(p, worker)
		}
	}
}

// stopped has agents stand still, on each of some hosts. Their programs go on.
func stopped(
	which func(p *scenario, worker *hosts.Host) []*hosts.Host, span time.Duration,
) func(*scenario, *hosts.Host) {
	each := func(do func(*hosts.Host)) func(p *scenario, worker *hosts.Host) {
		return func(p *scenario, worker *hosts.Host) {
			for _, h := range which(p, worker) {
				do(h)
			}
		}
	}
	return during(each(func(h *hosts.Host) { h.Agent.Signal(unix.SIGSTOP) }), each(func(h *hosts.Host) {
		h.Agent.Signal(unix.SIGCONT)
	}), span)
}

func theMaster(p *scenario, _ *hosts.Host) []*hosts.Host      { return p.Hosts[:1] }
func theWorker(_ *scenario, worker *hosts.Host) []*hosts.Host { return []*hosts.Host{worker} }
func allNodes(p *scenario, _ *hosts.Host) []*hosts.Host       { return p.Hosts }

// killed has an agent die, and start again after a while.
func killed(
	which func(p *scenario, worker *hosts.Host) []*hosts.Host, span time.Duration,
) func(*scenario, *hosts.Host) {
	return during(func(p *scenario, worker *hosts.Host) { which(p, worker)[0].Agent.Kill() },
		func(p *scenario, worker *hosts.Host) { p.Relaunch(which(p, worker)[0]) }, span)
}

// absences are those of the short form; the long form has the whole table.
func absences() []absence {
	const s = time.Second
	if !long() {
		return []absence{
			{"the master's link", 1, masterLink(9 * s)},
			{"the master's cable", 1, masterCable(5 * s)},
			{"a worker's link", 2, workerLink(7 * s)},
			{"a worker's link, flapping", 1, flapping(workerLink, 8*s)},
			{"what a worker sends to the master", 1, toMaster(6 * s)},
			{"a worker's agent, killed", 4, killed(theWorker, s)},
			{"a worker's agent, stopped", 1, stopped(theWorker, 7*s)},
			{"the master's agent, stopped", 1, stopped(theMaster, 7*s)},
			{"all agents, stopped", 1, stopped(allNodes, 7*s)},
		}
	}
	var all []absence
	for _, span := range []time.Duration{5 * s, 9 * s, 20 * s, 60 * s} {
		for _, times := range []int{1, 5} {
			all = append(all,
				absence{fmt.Sprintf("the master's link for %v", span), times, masterLink(span)},
				absence{fmt.Sprintf("a worker's link for %v", span), times, workerLink(span)})
		}
		all = append(all,
			absence{fmt.Sprintf("the master's cable for %v", span), 1, masterCable(span)},
			absence{fmt.Sprintf("what a worker sends to the master for %v", span), 1, toMaster(span)},
			absence{fmt.Sprintf("what the master sends to a worker for %v", span), 1, fromMaster(span)})
	}
	for _, span := range []time.Duration{s, 3 * s, 9 * s} {
		all = append(all,
			absence{fmt.Sprintf("a worker's agent, killed, for %v", span), 3, killed(theWorker, span)},
			absence{fmt.Sprintf("the master's agent, killed, for %v", span), 3, killed(theMaster, span)})
	}
	return append(all,
		absence{"the master's link, flapping", 1, flapping(masterLink, time.Minute)},
		absence{"a worker's link, flapping", 1, flapping(workerLink, time.Minute)},
		absence{"the master's agent, stopped", 1, stopped(theMaster, 30*s)},
		absence{"a worker's agent, stopped", 1, stopped(theWorker, 30*s)},
		absence{"all agents, stopped", 1, stopped(allNodes, 30*s)})
}

// TestOutages has parts of a cluster be away and come back while trials run whose programs live all
// the time. There is room for a second run of each elsewhere. No trial fails, none is lost, and
// each one's first attempt gives the result.
func TestOutages(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	for _, a := range absences() {
		began := time.Now()
		p.t = t
		open := p.submitGated(p.Master, 4)
		p.ledger.waitForStarted(4)
		p.waitForReported(4)
		first := p.ledger.first()
		worker := p.busyWorker()
		for range a.times {
			a.away(p, worker)
			p.allAlive()
		}
		p.waitForFirst(a.name, first)
		open()
		p.finish(settle)
		p.checkFirst(a.name, first)
		t.Logf("%s, %d times: %v in all", a.name, a.times, time.Since(began).Round(time.Second))
	}
	p.checkNothingRuns()
}

// waitForFirst waits until each trial runs by its first attempt alone.
func (sc *scenario) waitForFirst(name string, first map[int64]ledgerLine) {
	sc.t.Helper()
	c := sc.client(sc.Master)
	hosts.WaitFor(sc.t, hosts.Timeout, func() error {
		for _, tr := range sc.trials(c) {
			if tr.State != grid.Running || tr.Attempt != 1 || string(tr.Node) != first[tr.Index].host {
				return fmt.Errorf("%s: trial %d is %s with attempt %d on %s, want attempt 1 on %s; %s",
					name, tr.Index, tr.State, tr.Attempt, tr.Node, first[tr.Index].host, tr.Reason)
			}
		}
		running := 0
		for _, h := range sc.Hosts {
			running += marked(h, sc.ledger.path)
		}
		if running != len(first) {
			return fmt.Errorf("%s: %d programs of trials run, want %d", name, running, len(first))
		}
		return nil
	})
}

// checkFirst fails unless each trial succeeded by the process that began it first.
func (sc *scenario) checkFirst(name string, first map[int64]ledgerLine) {
	sc.t.Helper()
	ended := map[string]bool{}
	for _, r := range sc.ledger.lines() {
		ended[r.host+" "+r.pid] = ended[r.host+" "+r.pid] || r.ended
	}
	for _, tr := range sc.trials(sc.client(sc.Master)) {
		f := first[tr.Index]
		if tr.State != grid.Succeeded || tr.Attempt != 1 || string(tr.Node) != f.host || !ended[f.host+" "+f.pid] {
			sc.t.Errorf("%s: trial %d is %s by attempt %d on %s, and its first program ended by itself: %v; want success by the first on %s; %s",
				name, tr.Index, tr.State, tr.Attempt, tr.Node, ended[f.host+" "+f.pid], f.host, tr.Reason)
		}
	}
}

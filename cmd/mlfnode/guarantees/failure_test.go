package guarantees

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestFastFailure takes the power from a worker again and again, then kills its agent again and
// again, and measures from that moment to the one in which the last of its trials begins on another
// host. A machine that is gone is gone immediately; the programs of an agent that has died go on
// and wait for the next one, so that nothing begins elsewhere before its patience is over.
func TestFastFailure(t *testing.T) {
	const patience = 3 * time.Second
	p := newScenario(t, clusterSize, hosts.Options{Env: []string{"MLF_PATIENCE=" + patience.String()}})
	for _, way := range []struct {
		name         string
		least, limit time.Duration
		end          func(h *hosts.Host)
		back         func(h *hosts.Host)
	}{
		{"power cut", 0, 5 * time.Second, (*hosts.Host).PowerCut, (*hosts.Host).Boot},
		{"killed agent", patience, patience + 2*time.Second, func(h *hosts.Host) { h.Agent.Kill() },
			func(*hosts.Host) {}},
	} {
		var times []time.Duration
		for range scale(4, 20) {
			p.allAlive()
			open := p.submitGated(p.Master, 6)
			p.ledger.waitForStarted(6)
			h := p.busyWorker()
			lost := p.ledger.running(h.Name)
			began := time.Now()
			way.end(h)
			last := p.ledger.waitForElsewhere(lost, h.Name, began, 30*time.Second)
			times = append(times, last.Sub(began))
			open()
			p.finish(settle)
			way.back(h)
			p.Relaunch(h)
		}
		t.Logf("%s, to the trials running elsewhere:\n%s", way.name, histogram(times))
		if slowest := slices.Max(times); slowest >= way.limit {
			t.Errorf("%s: the slowest of %d took %v, want less than %v", way.name, len(times), slowest, way.limit)
		}
		if fastest := slices.Min(times); fastest < way.least {
			t.Errorf("%s: the fastest of %d took %v, want at least %v", way.name, len(times), fastest, way.least)
		}
	}
}

// histogram draws how often a time fell into each step.
func histogram(times []time.Duration) string {
	const step = 250 * time.Millisecond
	count := map[int]int{}
	for _, d := range times {
		count[int(d/step)]++
	}
	var b strings.Builder
	for i := range int(slices.Max(times)/step) + 1 {
		fmt.Fprintf(&b, "%5.2f s to %5.2f s  %s\n", (time.Duration(i) * step).Seconds(),
			(time.Duration(i+1) * step).Seconds(), strings.Repeat("#", count[i]))
	}
	fmt.Fprintf(&b, "%d tries, from %.2f s to %.2f s", len(times), slices.Min(times).Seconds(),
		slices.Max(times).Seconds())
	return b.String()
}

// TestNoFalseDeath loses a tenth of all frames and keeps every processor busy. Nobody may be called
// dead, and no trial may run twice.
func TestNoFalseDeath(t *testing.T) {
	p := newScenario(t, clusterSize, hosts.Options{})
	span := scale(30*time.Second, 10*time.Minute)
	p.SetLinkConditions(hosts.LinkConditions{Loss: 0.1})
	for _, h := range p.Hosts {
		h.StartCommand(h.Program("/bin/sh", "-c", "while :; do :; done"))
	}
	p.submitWriters(p.Master, 4*slotsOfHost*clusterSize, int(span.Seconds()/8), time.Second)
	asked, answers := 0, map[string]int{}
	for over := time.Now().Add(span); time.Now().Before(over); {
		h := p.Hosts[asked%len(p.Hosts)]
		asked++
		all, err := h.Agent.Members()
		if err != nil {
			t.Errorf("%v", err)
		}
		for _, m := range all {
			answers[m.State]++
			if m.State == "dead" || m.State == "left" {
				t.Errorf("%s calls %s %s", h.Name, m.Node, m.State)
			}
		}
		wait(200 * time.Millisecond)
	}
	t.Logf("asked %d times over %v, answers: %v", asked, span, answers)
	p.SetLinkConditions(hosts.LinkConditions{})
	p.checkAll()
	for _, tr := range p.trials(p.client(p.Master)) {
		if tr.Attempts != 1 {
			t.Errorf("trial %d ran %d times", tr.Index, tr.Attempts)
		}
	}
}

// joinLimit is the promise from the start of `mlfnode join` to a worker that runs trials.
const joinLimit = time.Second

// TestJoinIsFast measures from the start of the program on an idle host to the node being a member
// that takes trials.
func TestJoinIsFast(t *testing.T) {
	p := newScenario(t, 1, hosts.Options{})
	p.Master.Must("drain", "host1")
	p.submitGated(p.Master, 2)
	h := p.AddHost("newcomer")
	began := time.Now()
	p.Join(h)
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := p.ledger.started(); n < 1 {
			return fmt.Errorf("no trial has begun")
		}
		return nil
	})
	took := p.ledger.lines()[0].at.Sub(began)
	t.Logf("from the start of join to the first trial: %v", took)
	if took > joinLimit {
		t.Errorf("it took %v, want at most %v", took, joinLimit)
	}
	p.Master.Must("cancel", string(p.sweep))
	p.checkNothingRuns()
}

package guarantees

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestCheckpoint stops counters in every way there is, and counts: the sum is that of a run without
// a stop, and no step is done twice beyond the last snapshot.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	p := counters{newScenario(t, 3, hosts.Options{})}
	defer p.logAttempts()
	for _, c := range []struct {
		name   string
		inject func(on *hosts.Host)
	}{
		{"drain and undrain", func(on *hosts.Host) {
			p.Master.Must("drain", on.Name)
			before := p.waitForMove(on)
			p.Master.Must("undrain", on.Name)
			p.Master.Must("drain", before.Name)
			p.waitForMove(before)
			p.Master.Must("undrain", before.Name)
		}},
		{"pause and resume", func(*hosts.Host) {
			p.Master.Must("pause", string(p.sweep))
			p.atRest()
			p.Master.Must("resume", "--detach", string(p.sweep))
		}},
		{"cancel with --save, and retry", func(*hosts.Host) {
			p.Master.Must("cancel", "--save", string(p.sweep))
			p.atRest()
			p.Master.Must("retry", "--detach", string(p.sweep))
		}},
		{"a node that leaves and joins again", func(on *hosts.Host) {
			on.Agent.Signal(unix.SIGTERM)
			if code := on.Agent.Exit(hosts.Timeout); code != 0 {
				t.Errorf("got exit code %d of an agent that was told to leave", code)
			}
			p.waitForMove(on)
			p.Relaunch(on)
		}},
		{"kill -9 of the agent, which starts again", func(on *hosts.Host) {
			on.Agent.Kill()
			p.Relaunch(on)
		}},
		{"kill -9 of the master, which starts again", func(*hosts.Host) {
			p.Master.Agent.Kill()
			p.Relaunch(p.Master)
		}},
	} {
		began := time.Now()
		p.countUp(3, "{grace: 30s}", "")
		on := p.waitForStep(10)
		if on == nil {
			t.Fatalf("%s: all trials run on the master", c.name)
		}
		c.inject(on)
		repeated, back := p.checkCounted()
		if repeated > 0 || back > 0 {
			t.Errorf("%s: got %d steps done twice, %d back; want none", c.name, repeated, back)
		}
		p.checkNothingLeft()
		p.allAlive()
		t.Logf("%s: whole after %v", c.name, time.Since(began).Round(time.Millisecond))
	}
}

// TestCheckpointAlone interrupts, ends and kills a machine that stands alone, again and again, and
// resumes: the sum is right, and no step is done twice but the one in which a kill came.
func TestCheckpointAlone(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		h := newHome(t, "MLF_CPUS=4")
		ledger := filepath.Join(h.dir, "ledger")
		args := []string{"sweep", "-q", "--set", "i=0:2",
			writeCounter(t, filepath.Join(h.dir, "counts"), ledger, "{grace: 30s}", "")}
		stops := 0
		for ; stops < 5; stops++ {
			before := countLines(ledger)
			if h.interruptOnce(func() bool { return countLines(ledger) > before+20 }, sig, args...) {
				break
			}
			if h.submitted() {
				args = []string{"resume", "-q", "last"}
			}
		}
		if !strings.Contains(h.must("sweeps", "--json"), `"finished"`) {
			h.must(args...)
		}
		h.read(func(c *api.Client) {
			all := trials(t, c)
			checkResults(t, all, 2, grid.Succeeded)
			for _, tr := range all {
				if want := strconv.Itoa(steps * (steps + 1) / 2); string(tr.Metrics["sum"]) != want {
					t.Errorf("%v: trial %d: got the sum %s, want %s", sig, tr.Index, tr.Metrics["sum"], want)
				}
			}
		})
		times, attempts := map[[2]int]int{}, 0
		for _, s := range readSteps(t, ledger) {
			if s.began {
				attempts++
			} else if times[[2]int{s.trial, s.step}]++; times[[2]int{s.trial, s.step}] > 1 {
				t.Errorf("%v: trial %d did step %d twice", sig, s.trial, s.step)
			}
		}
		if attempts < 4 || len(times) < 2*steps-stops*2 {
			t.Errorf("%v: got %d attempts and %d steps in the ledger", sig, attempts, len(times))
		}
		t.Logf("%v: %d attempts", sig, attempts)
	}
}

// countLines gives 0 for a file that is not there yet.
func countLines(file string) int {
	text, _ := os.ReadFile(file)
	return strings.Count(string(text), "\n")
}

// often is a checkpoint whose state is stored while the trial runs. The programs write more often
// than nothing is written for `quiet`, but they pause in between.
const often = "{grace: 30s, every: 200ms, quiet: 20ms}"

// TestCheckpointFaults breaks nodes under counters and spoils what they save: each goes on from the
// last snapshot that can be read, and the sum is right.
func TestCheckpointFaults(t *testing.T) {
	t.Parallel()
	p := counters{newScenario(t, 3, hosts.Options{Disk: smallDisk})}
	defer p.logAttempts()
	var stored map[int]int // what the master has of each trial when a node is lost
	lose := func(fault func()) {
		t.Helper()
		hosts.WaitFor(t, hosts.Timeout, func() error {
			stored = map[int]int{}
			for i := range p.count {
				if stored[i] = p.storedStep(i); stored[i] == 0 {
					return fmt.Errorf("no snapshot of the running trial %d is stored", i)
				}
			}
			return nil
		})
		fault()
	}
	for _, c := range []struct {
		name       string
		checkpoint string
		extra      string
		inject     func(on *hosts.Host)
		back       int // how far an attempt may go back at most; below 0 is not checked
	}{
		{"power cut of a worker", often, "", func(on *hosts.Host) {
			lose(on.PowerCut)
			p.finish(settle)
			on.Boot()
			p.Relaunch(on)
		}, steps - 1},
		{"kill -9 of an agent for good", often, "", func(on *hosts.Host) {
			lose(on.Agent.Kill)
			p.finish(settle)
			p.Relaunch(on)
		}, steps - 1},
		{"a worker off the network for a while", often, "", func(on *hosts.Host) {
			lose(on.Network.Disconnect)
			wait(outage())
			on.Network.Reconnect()
		}, -1}, // both attempts may run at a time
		{"the clock steps forth and back, then a drain", often, "", func(on *hosts.Host) {
			on.Clock.SetOffset(time.Hour)
			wait(time.Second / 2)
			on.Clock.SetOffset(-time.Hour)
			wait(time.Second / 2)
			p.Master.Must("drain", on.Name)
			p.waitForMove(on)
			on.Clock.SetOffset(0)
			p.Master.Must("undrain", on.Name)
		}, 0},
		{"full disk of a worker", "{grace: 30s}", "", func(on *hosts.Host) {
			on.Disk.Fill()
			wait(2 * time.Second)
			on.Disk.Free()
		}, 1}, // the step that could not be saved
		{"full disk of the master", "{grace: 30s}", `case $MLF_ATTEMPT/$step in 1/40) exit 85 ;; esac`,
			func(*hosts.Host) {
				p.Master.Disk.Fill()
				wait(3 * time.Second)
				p.Master.Disk.Free()
			}, 1},
		{"exit code 85, again and again", "{grace: 30s, repeats: 9}", `((step % 10)) || ((step == steps)) || exit 85`,
			nil, 0},
		{"a torn file", "{grace: 30s}", `case $MLF_ATTEMPT/$step in
1/20) exit 85 ;;
2/30) printf '30 4' >"$state"; exit 85 ;;
esac`, nil, 10},
		{"a state over max_size", "{grace: 30s, max_size: 9B}", `case $MLF_ATTEMPT/$step in 1/40) exit 85 ;; esac`, nil,
			40},
	} {
		began := time.Now()
		stored = nil
		p.countUp(3, c.checkpoint, c.extra)
		if c.inject != nil {
			on := p.waitForStep(10)
			if on == nil {
				t.Fatalf("%s: all trials run on the master", c.name)
			}
			c.inject(on)
		}
		repeated, back := p.checkCounted()
		if c.back >= 0 && back > c.back {
			t.Errorf("%s: an attempt went back by %d steps, want at most %d", c.name, back, c.back)
		}
		for _, s := range p.steps() {
			if s.began && s.attempt > 1 && s.step < stored[s.trial] {
				t.Errorf("%s: attempt %d of trial %d goes on from step %d, and step %d was stored", c.name, s.attempt,
					s.trial, s.step, stored[s.trial])
			}
		}
		p.checkAttempts(c.name)
		p.allAlive()
		t.Logf("%s: whole after %v, with %d steps done twice, %d back", c.name,
			time.Since(began).Round(time.Millisecond), repeated, back)
	}
}

// TestCheckpointIsForTheHolder asks for what a trial has saved, and offers to replace it: only the
// node that holds the trial may, and even that one can't leave the trial's folder.
func TestCheckpointIsForTheHolder(t *testing.T) {
	t.Parallel()
	a := newAttacks(t)
	p := counters{a.scenario}
	a.Master.Must("drain", a.Master.Name)
	p.countUp(1, "{grace: 30s, every: 100ms, quiet: 10ms}", "((step > 30)) || sleep 0.3")
	on := p.waitForStep(3)
	other := a.worker
	if on == other {
		other = a.victim
	}
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if p.storedStep(0) == 0 {
			return errors.New("no snapshot of the running trial is stored")
		}
		return nil
	})
	base := fmt.Sprintf("/v1/snapshots/%s/0", a.sweep)
	files, err := os.ReadDir(filepath.Join(a.Master.StateDir(), "snapshots", string(a.sweep), "0", "files"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v", files, err)
	}
	hash := files[0].Name()
	snapshot := func(path string) string {
		return fmt.Sprintf(`{"v":1,"a":1,"t":1,"f":[{"p":%q,"m":384,"t":1,"s":1,"h":%q}]}`, path,
			strings.Repeat("a", 64))
	}
	requests := []struct{ method, path, body string }{
		{"POST", base, snapshot("state")}, {"GET", base + "/1", ""}, {"GET", base + "/2", ""},
		{"GET", base + "/files/" + hash, ""},
		{"PUT", base + "/files/" + hash + "?size=1&have=0", "x"}, {"POST", base + "/files/" + hash, ""},
	}
	admin := bearer(a.NewToken("--role", "admin"))
	for name, who := range map[string]struct {
		cfg   *tls.Config
		token string
	}{
		"nobody": {trusting(), ""}, "a person": {trusting(), admin},
		"a node that does not hold the trial": {trusting(a.stolen(other)), ""},
		"a node that shows a token too":       {trusting(a.stolen(other)), admin},
	} {
		for _, r := range requests {
			if err := a.call(who.cfg, who.token, r.method, r.path,
				strings.NewReader(r.body)).refused(http.StatusForbidden); err != nil {
				t.Errorf("%s, %s %s: %v", name, r.method, r.path, err)
			}
		}
	}
	holder := trusting(a.stolen(on))
	if r := a.call(holder, "", "POST", base, strings.NewReader(snapshot("state"))); r.status != http.StatusOK {
		t.Errorf("the node that holds the trial: got %d, %v", r.status, r.err)
	}
	for _, r := range []struct{ method, path, body string }{
		{"POST", base, snapshot("../../../../escaped")}, {"POST", base, snapshot("/etc/escaped")}, {"POST", base, "{"},
		{"POST", base, `{"f":7}`},
		{"POST", base, `{"v":1,"f":[` + strings.Repeat(`{"p":"x","m":384},`, 200_000) + `{}]}`},
		{"GET", base + "/files/" + strings.Repeat("b", 64), ""}, {"POST", base + "/files/..%2f..%2ftrial.json", ""},
		{"GET", base + "/files/..%2f..%2ftrial.json", ""}, {"GET", base + "/99", ""},
		{"PUT", base + "/files/..%2fescaped?size=1&have=0", "x"},
		{"PUT", base + "/files/" + strings.Repeat("a", 64) + "?size=1&have=0", "x"},
		{"PUT", base + "/files/" + strings.Repeat("a", 64) + "?size=-1&have=-5", "x"},
		{"PUT", base + "/files/" + strings.Repeat("a", 64), "x"},
		{"PUT", base + "/files/" + strings.Repeat("c", 64) + "?size=9223372036854775807&have=0", "x"},
		{"GET", strings.Replace(base, "/0", "/1", 1) + "/1", ""},
		{"GET", strings.Replace(base, "/0", "/-1", 1) + "/1", ""},
		{"GET", "/v1/snapshots/..%2f..%2ftrust/0/1", ""}, {"POST", "/v1/snapshots/unknown-1/0", snapshot("state")},
		{"DELETE", base, ""},
	} {
		reply := a.call(holder, "", r.method, r.path, strings.NewReader(r.body))
		if reply.err != nil || reply.status < 400 ||
			reply.status == http.StatusInternalServerError && !strings.HasPrefix(r.method, "PUT") {
			t.Errorf("%s %s %.60s: got %d, %v; want a refusal", r.method, r.path, r.body, reply.status, reply.err)
		}
	}
	escaped, err := exec.Command("find", a.Dir, "-name", "*escaped*").CombinedOutput()
	if err != nil || len(escaped) > 0 {
		t.Errorf("got %s, %v outside of the store", escaped, err)
	}
	p.checkCounted()
}

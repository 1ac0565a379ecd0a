package guarantees

import (
	"archive/tar"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// counter is a program that counts and adds up, saves each step and tells the ledger of it. It
// continues from what it has saved, and ends after a notice.
const counter = `set -e
ledger=$1 steps=$2
state=$MLF_CHECKPOINT/state step=0 sum=0 stop=
trap 'stop=1' TERM
if [ -n "$MLF_RESUME" ]; then
	read -r step sum end <"$state" || :
	[ "$end" = whole ] || { echo "_pickle.UnpicklingError: pickle data was truncated" >&2; exit 1; }
fi
echo "$MLF_TRIAL $MLF_ATTEMPT $HOSTNAME $step from" >>"$ledger"
while ((step < steps)) && [ -z "$stop" ]; do
	sleep 0.05
	step=$((step + 1)) sum=$((sum + step))
	echo "$step $sum whole" >"$state.tmp"
	mv -f "$state.tmp" "$state"
	echo "$MLF_TRIAL $MLF_ATTEMPT $HOSTNAME $step done" >>"$ledger"
	[ -z "$EXTRA" ] || . "$EXTRA"
done
[ -z "$stop" ] || exit 3
echo "{\"sum\": $sum}" >>"$MLF_METRICS"`

// steps is how far the programs of these tests count.
const steps = 100

// countUp has a sweep of some counters run, with a checkpoint as given in project.yaml. Extra is a
// script that each runs after each step.
func (sc *scenario) countUp(trials int, checkpoint, extra string) {
	sc.t.Helper()
	sc.ledger, sc.count = sc.newFile("ledger"), trials
	dir := writeCounter(sc.t, sc.newFile("project"), sc.ledger, checkpoint, extra)
	line := sc.Master.Must("sweep", "--detach", "--set", fmt.Sprintf("i=0:%d", trials), dir)
	sc.sweep = grid.SweepID(strings.TrimSpace(line))
}

// writeCounter makes a project of counters in dir.
func writeCounter(t *testing.T, dir, ledger, checkpoint, extra string) string {
	t.Helper()
	script := ""
	if extra != "" {
		script = filepath.Join(dir, "extra.sh")
	}
	for name, text := range map[string]string{
		"run.sh": counter, "extra.sh": extra,
		"project.yaml": fmt.Sprintf(`name: counts
tasks:
  count:
    command: ["bash", "run.sh", %q, "%d", "{i}"]
    env: {EXTRA: %q}
    retries: 4
    checkpoint: %s
`, ledger, steps, script, checkpoint),
	} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tell logs the attempts of a test that has failed.
func (sc *scenario) tell() {
	if !sc.t.Failed() {
		return
	}
	c := sc.client(sc.Master)
	for i := range int64(sc.count) {
		attempts, err := c.Trials().Attempts(context.Background(), grid.TrialID{Sweep: sc.sweep, Index: i})
		for _, a := range attempts {
			sc.t.Logf("trial %d, attempt %d on %s: %s %s %s", i, a.Attempt, a.Node, a.Outcome, a.Class, a.Reason)
		}
		sc.t.Logf("trial %d: %d attempts, %v", i, len(attempts), err)
	}
	text, _ := os.ReadFile(sc.ledger)
	sc.t.Logf("the ledger:\n%s", tail(string(text)))
}

// stepped is a line of the ledger of counters.
type stepped struct {
	trial   int
	attempt int
	host    string
	step    int
	began   bool // the attempt began after this step
}

func (sc *scenario) steps() []stepped {
	sc.t.Helper()
	return readSteps(sc.t, sc.ledger)
}

func readSteps(t *testing.T, ledger string) []stepped {
	t.Helper()
	text, err := os.ReadFile(ledger)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all []stepped
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			t.Fatalf("the ledger has the line %q", line)
		}
		s := stepped{host: f[2], began: f[4] == "from"}
		_, index, _ := strings.Cut(f[0], "/")
		if _, err := fmt.Sscan(index+" "+f[1]+" "+f[3], &s.trial, &s.attempt, &s.step); err != nil {
			t.Fatalf("the ledger has the line %q", line)
		}
		all = append(all, s)
	}
	return all
}

// awaitStep waits until every trial has done so many steps, and gives the host on which a trial
// runs that is not the master, if any.
func (sc *scenario) awaitStep(n int) *hosts.Host {
	sc.t.Helper()
	var on *hosts.Host
	hosts.WaitFor(sc.t, hosts.Patience, func() error {
		on = nil
		far := map[int]int{}
		for _, s := range sc.steps() {
			far[s.trial] = max(far[s.trial], s.step)
			if h := sc.Host(s.host); h != sc.Master && s.step >= n {
				on = h
			}
		}
		for i := range sc.count {
			if far[i] < n {
				return fmt.Errorf("trial %d has done %d steps, want %d", i, far[i], n)
			}
		}
		return nil
	})
	return on
}

// checkCounted fails unless every trial has the right sum. It gives how many steps were done more
// than once, and the longest way that an attempt went back.
func (sc *scenario) checkCounted() (repeated, back int) {
	sc.t.Helper()
	sc.finish(settle)
	c := sc.client(sc.Master)
	all := sc.trials(c)
	checkResults(sc.t, all, sc.count, grid.Succeeded)
	for _, tr := range all {
		var sum int
		if err := json.Unmarshal(tr.Metrics["sum"], &sum); err != nil || sum != steps*(steps+1)/2 {
			sc.t.Errorf("trial %d: got the sum %s (%v), want %d", tr.Index, tr.Metrics["sum"], err, steps*(steps+1)/2)
		}
	}
	times, far := map[[2]int]int{}, map[int]int{}
	for _, s := range sc.steps() {
		if s.began {
			back = max(back, far[s.trial]-s.step)
			continue
		}
		far[s.trial] = max(far[s.trial], s.step)
		if times[[2]int{s.trial, s.step}]++; times[[2]int{s.trial, s.step}] > 1 {
			repeated++
		}
	}
	if len(times) < sc.count*steps {
		sc.t.Errorf("got %d steps in the ledger, want %d: some were left out", len(times), sc.count*steps)
	}
	return repeated, back
}

// storedStep gives the step of the newest snapshot of a trial that the master has, 0 for none.
func (sc *scenario) storedStep(trial int) (step int) {
	sc.t.Helper()
	dir := filepath.Join(sc.Master.StateDir(), "snapshots", string(sc.sweep), strconv.Itoa(trial))
	manifests, err := filepath.Glob(filepath.Join(dir, "[0-9]*.json"))
	if err != nil {
		sc.t.Fatal(err)
	}
	for _, m := range manifests {
		var snapshot struct {
			F []struct {
				P, H string
			}
		}
		b, err := os.ReadFile(m)
		if err != nil || json.Unmarshal(b, &snapshot) != nil {
			continue // removed meanwhile
		}
		for _, f := range snapshot.F {
			text, err := os.ReadFile(filepath.Join(dir, "files", f.H))
			if n, _, ok := strings.Cut(string(text), " "); err == nil && ok && f.P == "state" {
				s, _ := strconv.Atoi(n)
				step = max(step, s)
			}
		}
	}
	return step
}

// TestCheckpoint stops counters in every way there is, and counts: the sum is that of a run without
// a stop, and no step is done twice beyond the last snapshot.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	defer p.tell()
	for _, c := range []struct {
		name   string
		inject func(on *hosts.Host)
	}{
		{"drain and undrain", func(on *hosts.Host) {
			p.Master.Must("drain", on.Name)
			before := p.awaitElse(on)
			p.Master.Must("undrain", on.Name)
			p.Master.Must("drain", before.Name)
			p.awaitElse(before)
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
			if code := on.Agent.Exit(hosts.Patience); code != 0 {
				t.Errorf("got exit code %d of an agent that was told to leave", code)
			}
			p.awaitElse(on)
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
		on := p.awaitStep(10)
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

// awaitElse waits until a trial that ran on a host has begun on another one that is not the master,
// and gives it.
func (sc *scenario) awaitElse(than *hosts.Host) (on *hosts.Host) {
	sc.t.Helper()
	hosts.WaitFor(sc.t, hosts.Patience, func() error {
		last := map[int]stepped{}
		for _, s := range sc.steps() {
			last[s.trial] = s
		}
		on = nil
		for _, s := range last {
			switch {
			case s.host == than.Name && s.step < steps:
				return fmt.Errorf("trial %d is still on %s", s.trial, than.Name)
			case s.attempt > 1:
				on = sc.Host(s.host)
			}
		}
		if on == nil {
			return errors.New("no trial has moved")
		}
		return nil
	})
	return on
}

// atRest waits until nothing of the sweep runs.
func (sc *scenario) atRest() {
	sc.t.Helper()
	c := sc.client(sc.Master)
	hosts.WaitFor(sc.t, hosts.Patience, func() error {
		v, err := c.Sweeps().Get(sc.t.Context(), sc.sweep)
		if err == nil && (v.Running > 0 || v.State == grid.SweepRunning) {
			err = fmt.Errorf("%s is %s, and %d trials run", sc.sweep, v.State, v.Running)
		}
		return err
	})
}

// checkNothingLeft fails unless all that trials have saved is gone after their success, on the
// nodes that are up and on the master.
func (sc *scenario) checkNothingLeft() {
	sc.t.Helper()
	hosts.WaitFor(sc.t, 30*time.Second, func() error {
		if dirs, _ := filepath.Glob(filepath.Join(sc.Master.StateDir(), "snapshots", string(sc.sweep), "*")); len(dirs) > 0 {
			return fmt.Errorf("the master keeps %v", dirs)
		}
		for _, h := range sc.Hosts {
			if dirs, _ := filepath.Glob(filepath.Join(h.StateDir(), "checkpoints", string(sc.sweep), "*")); len(dirs) > 0 {
				return fmt.Errorf("%s keeps %v", h.Name, dirs)
			}
		}
		return nil
	})
}

// TestCheckpointAlone interrupts, ends and kills a machine that stands alone, again and again, and
// resumes: the sum is right, and no step is done twice but the one in which a kill came.
func TestCheckpointAlone(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		h := newHome(t, "MLF_CPUS=4")
		ledger := filepath.Join(h.dir, "ledger")
		args := []string{"sweep", "-q", "--set", "i=0:2", writeCounter(t, filepath.Join(h.dir, "counts"), ledger, "{grace: 30s}", "")}
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
	p := newScenario(t, 3, hosts.Options{Disk: smallDisk})
	defer p.tell()
	var stored map[int]int // what the master has of each trial when a node is lost
	lose := func(fault func()) {
		t.Helper()
		hosts.WaitFor(t, hosts.Patience, func() error {
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
			p.awaitElse(on)
			on.Clock.SetOffset(0)
			p.Master.Must("undrain", on.Name)
		}, 0},
		{"full disk of a worker", "{grace: 30s}", "", func(on *hosts.Host) {
			on.Disk.Fill()
			wait(2 * time.Second)
			on.Disk.Free()
		}, 1}, // the step that could not be saved
		{"full disk of the master", "{grace: 30s}", `case $MLF_ATTEMPT/$step in 1/40) exit 85 ;; esac`, func(*hosts.Host) {
			p.Master.Disk.Fill()
			wait(3 * time.Second)
			p.Master.Disk.Free()
		}, 1},
		{"exit code 85, again and again", "{grace: 30s, repeats: 9}", `((step % 10)) || ((step == steps)) || exit 85`, nil, 0},
		{"a torn file", "{grace: 30s}", `case $MLF_ATTEMPT/$step in
1/20) exit 85 ;;
2/30) printf '30 4' >"$state"; exit 85 ;;
esac`, nil, 10},
		{"a state over max_size", "{grace: 30s, max_size: 9B}", `case $MLF_ATTEMPT/$step in 1/40) exit 85 ;; esac`, nil, 40},
	} {
		began := time.Now()
		stored = nil
		p.countUp(3, c.checkpoint, c.extra)
		if c.inject != nil {
			on := p.awaitStep(10)
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
				t.Errorf("%s: attempt %d of trial %d goes on from step %d, and step %d was stored", c.name, s.attempt, s.trial, s.step, stored[s.trial])
			}
		}
		p.checkAttempts(c.name)
		p.allAlive()
		t.Logf("%s: whole after %v, with %d steps done twice, %d back", c.name, time.Since(began).Round(time.Millisecond), repeated, back)
	}
}

// checkAttempts fails unless the attempts report the faults that were injected.
func (sc *scenario) checkAttempts(name string) {
	sc.t.Helper()
	c := sc.client(sc.Master)
	for i := range int64(sc.count) {
		attempts, err := c.Trials().Attempts(sc.t.Context(), grid.TrialID{Sweep: sc.sweep, Index: i})
		if err != nil {
			sc.t.Fatal(err)
		}
		var classes []string
		reasons := ""
		for _, a := range attempts {
			classes = append(classes, string(a.Class))
			reasons += a.Reason + "\n"
		}
		got := strings.Join(classes, " ")
		want := got
		switch name {
		case "exit code 85, again and again":
			want = strings.Repeat("preempted ", 9)
		case "a torn file":
			want = "preempted preempted checkpoint "
		case "a state over max_size":
			want = "preempted "
			if !strings.Contains(reasons, "checkpoint.max_size is 9 B") {
				sc.t.Errorf("%s: trial %d: got the reasons %q, want the limit in them", name, i, reasons)
			}
		}
		if got != want {
			sc.t.Errorf("%s: trial %d: got the classes %q, want %q; %s", name, i, got, want, reasons)
		}
	}
}

// TestCheckpointChainer stops the training of the chainer example in every way: its log is that of
// a training without a stop, and no epoch is done twice beyond the last snapshot.
func TestCheckpointChainer(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	defer p.tell()
	dir := p.chainer()
	train := func() {
		t.Helper()
		p.count = 1
		p.sweep = grid.SweepID(strings.TrimSpace(p.Master.Must("sweep", "--detach", dir)))
	}
	// losses gives the loss of each epoch of the result, and how many epochs all attempts have done
	// together.
	losses := func() (all []string, done int) {
		t.Helper()
		p.finish(settle)
		c := p.client(p.Master)
		checkResults(t, p.trials(c), 1, grid.Succeeded)
		text := p.artifact(c, "result/log")
		var log []map[string]json.RawMessage
		if err := json.Unmarshal(text, &log); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for _, entry := range log {
			all = append(all, string(entry["epoch"])+" "+string(entry["main/loss"])+" "+string(entry["validation/main/loss"]))
		}
		attempts, err := c.Trials().Attempts(t.Context(), grid.TrialID{Sweep: p.sweep, Index: 0})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range attempts {
			done += p.epochs(c, a.Attempt)
		}
		return all, done
	}
	train()
	want, epochs := losses()
	if len(want) != chainerEpochs || epochs != chainerEpochs {
		t.Fatalf("without a stop: got %d losses of %d epochs, want %d", len(want), epochs, chainerEpochs)
	}
	for _, c := range []struct {
		name   string
		inject func(on *hosts.Host)
		twice  bool // epochs since the last snapshot may be done twice
	}{
		{"moved by a drain", func(on *hosts.Host) {
			p.Master.Must("drain", on.Name)
		}, false},
		{"paused", func(*hosts.Host) {
			p.Master.Must("pause", string(p.sweep))
			p.atRest()
			p.Master.Must("resume", "--detach", string(p.sweep))
		}, false},
		{"agent killed", func(on *hosts.Host) {
			on.Agent.Kill()
			p.Relaunch(on)
		}, false},
		{"node killed", func(on *hosts.Host) {
			hosts.WaitFor(t, hosts.Patience, func() error {
				if dirs, _ := filepath.Glob(filepath.Join(p.Master.StateDir(), "snapshots", string(p.sweep), "0", "[0-9]*.json")); len(dirs) == 0 {
					return errors.New("no snapshot of the running trial is stored")
				}
				return nil
			})
			on.PowerCut()
			p.finish(settle)
			on.Boot()
			p.Relaunch(on)
		}, true},
	} {
		p.Master.Must("drain", p.Master.Name)
		train()
		on := p.trains(3)
		p.Master.Must("undrain", p.Master.Name)
		c.inject(on)
		got, epochs := losses()
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: got the losses\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if !c.twice && epochs != chainerEpochs || epochs >= 2*chainerEpochs {
			t.Errorf("%s: %d epochs were done for %d", c.name, epochs, chainerEpochs)
		}
		p.Master.Must("undrain", on.Name)
		p.allAlive()
		t.Logf("%s: the same losses, after %d epochs for %d", c.name, epochs, chainerEpochs)
	}
}

// chainerEpochs is how long the training of the test is.
const chainerEpochs = 20

// chainer makes a copy of the example project whose programs find their packages without a network.
func (sc *scenario) chainer() string {
	sc.t.Helper()
	dir := sc.newFile("chainer")
	if err := os.CopyFS(dir, os.DirFS("../../../projects/chainer")); err != nil {
		sc.t.Fatal(err)
	}
	setup := exec.Command("python3", "-B", "-c", "import mkvenv; print(mkvenv.ensure(mkvenv.pick_python()))")
	setup.Dir = dir
	out, err := setup.Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			sc.t.Fatalf("the packages of the chainer example can't be installed: %v", err)
		}
		sc.t.Skip("the packages of the chainer example can't be installed here")
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	python := filepath.Join(lines[len(lines)-1], "bin", "python3")
	project := fmt.Sprintf(`name: chainer
tasks:
  train:
    command: [%q, "-u", "slowly.py"]
    constants: {epoch: %d, unit: 30, batchsize: 100, gpu: "-1", out: result}
    env: {OMP_NUM_THREADS: "1", MLF_BACKEND: numpy}
    checkpoint: {grace: 2m, every: 200ms, quiet: 50ms}
    artifacts: ["result/**"]
    metrics: {log: result/log}
`, python, chainerEpochs)
	slowly := `import time, train_mnist
train_epoch = train_mnist.train_epoch
def slow(*args):
    time.sleep(0.3)
    return train_epoch(*args)
train_mnist.train_epoch = slow
train_mnist.main()
`
	for name, text := range map[string]string{"project.yaml": project, "slowly.py": slowly, "parameters.yml": "seed: 3\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			sc.t.Fatal(err)
		}
	}
	return dir
}

// epochs counts the lines of the training's table that an attempt has printed.
func (sc *scenario) epochs(c *api.Client, attempt int) (n int) {
	sc.t.Helper()
	text := ""
	for o, err := range c.Logs().Stream(sc.t.Context(), sc.sweep, api.LogQuery{Index: 0, Attempt: attempt}) {
		if err != nil {
			sc.t.Fatal(err)
		}
		if o.Stream == "stdout" {
			text += string(o.Data)
		}
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 6 && f[0] != "epoch" {
			n++
		}
	}
	return n
}

// trains waits until the training has done so many epochs, and gives where it runs.
func (sc *scenario) trains(n int) (on *hosts.Host) {
	sc.t.Helper()
	c := sc.client(sc.Master)
	hosts.WaitFor(sc.t, hosts.Patience, func() error {
		attempts, err := c.Trials().Attempts(sc.t.Context(), grid.TrialID{Sweep: sc.sweep, Index: 0})
		if err != nil || len(attempts) == 0 {
			return errors.Join(err, errors.New("the training has not begun"))
		}
		last := attempts[len(attempts)-1]
		if got := sc.epochs(c, last.Attempt); got < n {
			return fmt.Errorf("%d epochs are done, want %d", got, n)
		}
		on = sc.Host(string(last.Node))
		return nil
	})
	return on
}

// artifact gives a file that the trial has left.
func (sc *scenario) artifact(c *api.Client, name string) []byte {
	sc.t.Helper()
	r, err := c.Trials().Artifacts(sc.t.Context(), sc.sweep, 0)
	if err != nil {
		sc.t.Fatal(err)
	}
	defer r.Close()
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if err != nil {
			sc.t.Fatalf("no artifact %s: %v", name, err)
		}
		if h.Name == "0/"+name {
			text, err := io.ReadAll(files)
			if err != nil {
				sc.t.Fatal(err)
			}
			return text
		}
	}
}

// TestCheckpointIsForTheHolder asks for what a trial has saved, and offers to replace it: only the
// node that holds the trial may, and even that one can't leave the trial's folder.
func TestCheckpointIsForTheHolder(t *testing.T) {
	t.Parallel()
	a := newAttacks(t)
	a.Master.Must("drain", a.Master.Name)
	a.countUp(1, "{grace: 30s, every: 100ms, quiet: 10ms}", "((step > 30)) || sleep 0.3")
	on := a.awaitStep(3)
	other := a.worker
	if on == other {
		other = a.victim
	}
	hosts.WaitFor(t, hosts.Patience, func() error {
		if a.storedStep(0) == 0 {
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
		return fmt.Sprintf(`{"v":1,"a":1,"t":1,"f":[{"p":%q,"m":384,"t":1,"s":1,"h":%q}]}`, path, strings.Repeat("a", 64))
	}
	requests := []struct{ method, path, body string }{
		{"POST", base, snapshot("state")}, {"GET", base + "/1", ""}, {"GET", base + "/2", ""}, {"GET", base + "/files/" + hash, ""},
		{"PUT", base + "/files/" + hash + "?size=1&have=0", "x"}, {"POST", base + "/files/" + hash, ""},
	}
	admin := bearer(a.NewToken("--role", "admin"))
	for name, who := range map[string]struct {
		cfg   *tls.Config
		token string
	}{
		"nobody": {trusting(), ""}, "a person": {trusting(), admin}, "a node that does not hold the trial": {trusting(a.stolen(other)), ""},
		"a node that shows a token too": {trusting(a.stolen(other)), admin},
	} {
		for _, r := range requests {
			if err := a.call(who.cfg, who.token, r.method, r.path, strings.NewReader(r.body)).refused(http.StatusForbidden); err != nil {
				t.Errorf("%s, %s %s: %v", name, r.method, r.path, err)
			}
		}
	}
	holder := trusting(a.stolen(on))
	if r := a.call(holder, "", "POST", base, strings.NewReader(snapshot("state"))); r.status != http.StatusOK {
		t.Errorf("the node that holds the trial: got %d, %v", r.status, r.err)
	}
	for _, r := range []struct{ method, path, body string }{
		{"POST", base, snapshot("../../../../escaped")}, {"POST", base, snapshot("/etc/escaped")}, {"POST", base, "{"}, {"POST", base, `{"f":7}`},
		{"POST", base, `{"v":1,"f":[` + strings.Repeat(`{"p":"x","m":384},`, 200_000) + `{}]}`},
		{"GET", base + "/files/" + strings.Repeat("b", 64), ""}, {"POST", base + "/files/..%2f..%2ftrial.json", ""}, {"GET", base + "/files/..%2f..%2ftrial.json", ""}, {"GET", base + "/99", ""},
		{"PUT", base + "/files/..%2fescaped?size=1&have=0", "x"}, {"PUT", base + "/files/" + strings.Repeat("a", 64) + "?size=1&have=0", "x"},
		{"PUT", base + "/files/" + strings.Repeat("a", 64) + "?size=-1&have=-5", "x"}, {"PUT", base + "/files/" + strings.Repeat("a", 64), "x"},
		{"PUT", base + "/files/" + strings.Repeat("c", 64) + "?size=9223372036854775807&have=0", "x"},
		{"GET", strings.Replace(base, "/0", "/1", 1) + "/1", ""}, {"GET", strings.Replace(base, "/0", "/-1", 1) + "/1", ""},
		{"GET", "/v1/snapshots/..%2f..%2ftrust/0/1", ""}, {"POST", "/v1/snapshots/unknown-1/0", snapshot("state")}, {"DELETE", base, ""},
	} {
		reply := a.call(holder, "", r.method, r.path, strings.NewReader(r.body))
		if reply.err != nil || reply.status < 400 || reply.status == http.StatusInternalServerError && !strings.HasPrefix(r.method, "PUT") {
			t.Errorf("%s %s %.60s: got %d, %v; want a refusal", r.method, r.path, r.body, reply.status, reply.err)
		}
	}
	escaped, err := exec.Command("find", a.Dir, "-name", "*escaped*").CombinedOutput()
	if err != nil || len(escaped) > 0 {
		t.Errorf("got %s, %v outside of the store", escaped, err)
	}
	a.checkCounted()
}

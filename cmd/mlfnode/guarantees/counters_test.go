package guarantees

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
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

// counters is a scenario whose trials are counters.
type counters struct{ *scenario }

// countUp has a sweep of some counters run, with a checkpoint as given in project.yaml. Extra is a
// script that each runs after each step.
func (cs counters) countUp(trials int, checkpoint, extra string) {
	cs.t.Helper()
	cs.ledger, cs.count = ledger{cs.t, cs.newFile("ledger")}, trials
	dir := writeCounter(cs.t, cs.newFile("project"), cs.ledger.path, checkpoint, extra)
	line := cs.Master.Must("sweep", "--detach", "--set", fmt.Sprintf("i=0:%d", trials), dir)
	cs.sweep = grid.SweepID(strings.TrimSpace(line))
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
		if err := errors.Join(os.MkdirAll(dir, 0o755),
			os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// stepped is a line of the ledger of counters.
type stepped struct {
	trial   int
	attempt int
	host    string
	step    int
	began   bool // the attempt began after this step
}

func (cs counters) steps() []stepped {
	cs.t.Helper()
	return readSteps(cs.t, cs.ledger.path)
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

// waitForStep waits until every trial has done so many steps, and gives the host on which a trial
// runs that is not the master, if any.
func (cs counters) waitForStep(n int) *hosts.Host {
	cs.t.Helper()
	var on *hosts.Host
	hosts.WaitFor(cs.t, hosts.Timeout, func() error {
		on = nil
		far := map[int]int{}
		for _, s := range cs.steps() {
			far[s.trial] = max(far[s.trial], s.step)
			if h := cs.Host(s.host); h != cs.Master && s.step >= n {
				on = h
			}
		}
		for i := range cs.count {
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
func (cs counters) checkCounted() (repeated, back int) {
	cs.t.Helper()
	cs.finish(settle)
	c := cs.client(cs.Master)
	all := cs.trials(c)
	checkResults(cs.t, all, cs.count, grid.Succeeded)
	for _, tr := range all {
		var sum int
		if err := json.Unmarshal(tr.Metrics["sum"], &sum); err != nil || sum != steps*(steps+1)/2 {
			cs.t.Errorf("trial %d: got the sum %s (%v), want %d", tr.Index, tr.Metrics["sum"], err, steps*(steps+1)/2)
		}
	}
	times, far := map[[2]int]int{}, map[int]int{}
	for _, s := range cs.steps() {
		if s.began {
			back = max(back, far[s.trial]-s.step)
			continue
		}
		far[s.trial] = max(far[s.trial], s.step)
		if times[[2]int{s.trial, s.step}]++; times[[2]int{s.trial, s.step}] > 1 {
			repeated++
		}
	}
	if len(times) < cs.count*steps {
		cs.t.Errorf("got %d steps in the ledger, want %d: some were left out", len(times), cs.count*steps)
	}
	return repeated, back
}

// storedStep gives the step of the newest snapshot of a trial that the master has, 0 for none.
func (cs counters) storedStep(trial int) (step int) {
	cs.t.Helper()
	dir := filepath.Join(cs.Master.StateDir(), "snapshots", string(cs.sweep), strconv.Itoa(trial))
	manifests, err := filepath.Glob(filepath.Join(dir, "[0-9]*.json"))
	if err != nil {
		cs.t.Fatal(err)
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

// waitForMove waits until a trial that ran on a host has begun on another one that is not the
// master, and gives it.
func (cs counters) waitForMove(than *hosts.Host) (on *hosts.Host) {
	cs.t.Helper()
	hosts.WaitFor(cs.t, hosts.Timeout, func() error {
		last := map[int]stepped{}
		for _, s := range cs.steps() {
			last[s.trial] = s
		}
		on = nil
		for _, s := range last {
			switch {
			case s.host == than.Name && s.step < steps:
				return fmt.Errorf("trial %d is still on %s", s.trial, than.Name)
			case s.attempt > 1:
				on = cs.Host(s.host)
			}
		}
		if on == nil {
			return errors.New("no trial has moved")
		}
		return nil
	})
	return on
}

// checkNothingLeft fails unless all that trials have saved is gone after their success, on the
// nodes that are up and on the master.
func (cs counters) checkNothingLeft() {
	cs.t.Helper()
	hosts.WaitFor(cs.t, 30*time.Second, func() error {
		if dirs, _ := filepath.Glob(filepath.Join(cs.Master.StateDir(), "snapshots", string(cs.sweep),
			"*")); len(dirs) > 0 {
			return fmt.Errorf("the master keeps %v", dirs)
		}
		for _, h := range cs.Hosts {
			if dirs, _ := filepath.Glob(filepath.Join(h.StateDir(), "checkpoints", string(cs.sweep),
				"*")); len(dirs) > 0 {
				return fmt.Errorf("%s keeps %v", h.Name, dirs)
			}
		}
		return nil
	})
}

// checkAttempts fails unless the attempts report the faults that were injected.
func (cs counters) checkAttempts(name string) {
	cs.t.Helper()
	c := cs.client(cs.Master)
	for i := range int64(cs.count) {
		attempts, err := c.Trials().Attempts(cs.t.Context(), grid.TrialID{Sweep: cs.sweep, Index: i})
		if err != nil {
			cs.t.Fatal(err)
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
				cs.t.Errorf("%s: trial %d: got the reasons %q, want the limit in them", name, i, reasons)
			}
		}
		if got != want {
			cs.t.Errorf("%s: trial %d: got the classes %q, want %q; %s", name, i, got, want, reasons)
		}
	}
}

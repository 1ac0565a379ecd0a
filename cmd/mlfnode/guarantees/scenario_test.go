package guarantees

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// long reports whether the long forms of the tests are wanted, with LONG=1.
func long() bool { return os.Getenv("LONG") == "1" }

// scale gives a measure of the long form, or of the short one.
func scale[T any](short, longer T) T {
	if long() {
		return longer
	}
	return short
}

// slotsOfHost is how many trials a host of a scenario runs at a time.
const slotsOfHost = 2

// settle is how long a cluster may take, after everything has been mended, to bring a sweep to its
// end.
const settle = 2 * time.Minute

// writerScript is a trial of some lines, each with its name, that tells a ledger outside of the
// cluster when and where it began and ended. It fails when it can't write. A process that got away
// from it, with the mark in its command line, would stay for five minutes.
const writerScript = `set -e
mark=$1 ledger=$2 lines=$3 pause=$4
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $$ begin" >>"$ledger"
setsid sh -c "sleep 300; : $mark" >/dev/null 2>&1 &
for ((n = 1; n <= lines; n++)); do
	echo "$MLF_TRIAL line $n"
	sleep "$pause"
done
echo "$MLF_TRIAL said it all" >&2
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $$ end" >>"$ledger"`

// gatedScript is a trial that ends when a file is there.
const gatedScript = `mark=$1 ledger=$2 gate=$3
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $$ begin" >>"$ledger"
until [ -e "$gate" ]; do sleep 0.1; done
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $$ end" >>"$ledger"`

// scenario is a cluster on which a sweep runs while things break.
type scenario struct {
	*hosts.Cluster
	t      *testing.T
	mark   string // in the command line of everything that trials start
	ledger ledger // what the trials of the sweep have reported
	sweep  grid.SweepID
	count  int
	lines  int

	retries int // of trials that fail
}

// newScenario starts a cluster of five hosts, or as many as are wanted.
func newScenario(t *testing.T, n int, o hosts.Options) *scenario {
	t.Helper()
	if testing.Short() {
		t.Skip("a cluster takes its time, and its programs are not those that -race looks at")
	}
	if o.Program == "" {
		o.Program = program
	}
	o.Env = append([]string{"MLF_CPUS=" + strconv.Itoa(slotsOfHost)}, o.Env...)
	p := &scenario{t: t, Cluster: hosts.NewCluster(t, n, o)}
	p.mark = strings.ReplaceAll(newMark(t), "/", "-")
	t.Cleanup(func() { checkAgents(t, p.Cluster) })
	return p
}

// submit starts a sweep of count trials from a host, in the background. The command gets the mark
// and the ledger, then args.
func (sc *scenario) submit(from *hosts.Host, count int, script string, args ...string) {
	sc.t.Helper()
	sc.count, sc.ledger = count, ledger{sc.t, sc.newFile("ledger")}
	line := []string{"sweep", "--detach", "--set", fmt.Sprintf("i=0:%d", count), "--retries", strconv.Itoa(sc.retries),
		"--", "bash", "-c", script, "trial", sc.mark, sc.ledger.path}
	sc.sweep = grid.SweepID(strings.TrimSpace(from.Must(append(line, args...)...)))
}

// newFile names a file that all hosts see.
func (sc *scenario) newFile(kind string) string {
	return filepath.Join(sc.Dir, fmt.Sprintf("%s-%d", kind, time.Now().UnixNano()))
}

// submitWriters submits a sweep of count trials that each print some lines, with a pause after
// each.
func (sc *scenario) submitWriters(from *hosts.Host, count, lines int, pause time.Duration) {
	sc.t.Helper()
	sc.lines = lines
	sc.submit(from, count, writerScript, strconv.Itoa(lines), strconv.FormatFloat(pause.Seconds(), 'f', 3, 64))
}

// submitGated has a sweep of count trials run that all end when open is called.
func (sc *scenario) submitGated(from *hosts.Host, count int) (open func()) {
	sc.t.Helper()
	sc.lines = 0
	gate := sc.newFile("gate")
	sc.submit(from, count, gatedScript, gate)
	return func() {
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			sc.t.Fatal(err)
		}
	}
}

// waitForReported waits until the master knows of n trials that they run: a node tells of those
// that take more than a moment.
func (sc *scenario) waitForReported(n int64) {
	sc.t.Helper()
	c := sc.client(sc.Master)
	hosts.WaitFor(sc.t, hosts.Timeout, func() error {
		v, err := c.Sweeps().Get(sc.t.Context(), sc.sweep)
		if err == nil && v.Running < n {
			err = fmt.Errorf("the master knows of %d running trials, want %d", v.Running, n)
		}
		return err
	})
}

// busyWorker gives a host that runs trials and is not the master.
func (sc *scenario) busyWorker() *hosts.Host {
	sc.t.Helper()
	var busy *hosts.Host
	hosts.WaitFor(sc.t, hosts.Timeout, func() error {
		for _, h := range sc.Hosts {
			if h != sc.Master && len(sc.ledger.running(h.Name)) > 0 {
				busy = h
				return nil
			}
		}
		return errors.New("no worker runs a trial")
	})
	return busy
}

// client asks the node of a host through its socket.
func (sc *scenario) client(h *hosts.Host) *api.Client {
	c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(h.StateDir(), "node.sock"))
	})
	sc.t.Cleanup(c.Close)
	return c
}

// finish waits until the sweep has ended.
func (sc *scenario) finish(limit time.Duration) {
	sc.t.Helper()
	c := sc.client(sc.Master)
	hosts.WaitFor(sc.t, limit, func() error {
		v, err := c.Sweeps().Get(sc.t.Context(), sc.sweep)
		if err == nil && v.State != grid.SweepFinished {
			err = fmt.Errorf("%s is %s: %d pending, %d running, %d succeeded, %d failed; %s", sc.sweep, v.State,
				v.Pending, v.Running, v.Succeeded, v.Failed, v.Problem)
		}
		return err
	})
}

// atRest waits until nothing of the sweep runs.
func (sc *scenario) atRest() {
	sc.t.Helper()
	c := sc.client(sc.Master)
	hosts.WaitFor(sc.t, hosts.Timeout, func() error {
		v, err := c.Sweeps().Get(sc.t.Context(), sc.sweep)
		if err == nil && (v.Running > 0 || v.State == grid.SweepRunning) {
			err = fmt.Errorf("%s is %s, and %d trials run", sc.sweep, v.State, v.Running)
		}
		return err
	})
}

// checkAll fails unless the sweep has ended with one result per index, whole logs, and nothing left
// running.
func (sc *scenario) checkAll() {
	sc.t.Helper()
	sc.finish(settle)
	c := sc.client(sc.Master)
	checkResults(sc.t, sc.trials(c), sc.count, grid.Succeeded)
	sc.checkOutput(c, sc.checkOneResult(c))
	sc.checkNothingRuns()
}

func (sc *scenario) trials(c *api.Client) []api.Trial {
	sc.t.Helper()
	var all []api.Trial
	for tr, err := range c.Trials().List(sc.t.Context(), sc.sweep, api.TrialQuery{}) {
		if err != nil {
			sc.t.Fatal(err)
		}
		all = append(all, tr)
	}
	return all
}

// checkOneResult fails unless every trial has one result among its attempts, and gives the runs
// that they come from.
func (sc *scenario) checkOneResult(c *api.Client) map[int64]string {
	sc.t.Helper()
	runs := map[int64]string{}
	again := 0
	for i := range int64(sc.count) {
		attempts, err := c.Trials().Attempts(sc.t.Context(), grid.TrialID{Sweep: sc.sweep, Index: i})
		if err != nil {
			sc.t.Fatal(err)
		}
		results := 0
		for _, a := range attempts {
			if a.Outcome == "result" {
				results++
				runs[i] = a.Run
			}
		}
		if results != 1 {
			sc.t.Errorf("trial %d: got %d results among its attempts %+v, want 1", i, results, attempts)
		}
		if len(attempts) > 1 {
			again++
		}
	}
	sc.t.Logf("%s: %d of %d trials ran more than once", sc.sweep, again, sc.count)
	return runs
}

// checkOutput fails unless the output of each result is whole, each piece once and in order.
func (sc *scenario) checkOutput(c *api.Client, runs map[int64]string) {
	sc.t.Helper()
	type key struct {
		index  int64
		stream string
	}
	got := map[key]*bytes.Buffer{}
	for o, err := range c.Logs().Stream(sc.t.Context(), sc.sweep, api.LogQuery{Index: -1}) {
		if err != nil {
			sc.t.Fatal(err)
		}
		if o.Run != runs[o.Index] {
			continue
		}
		k := key{o.Index, o.Stream}
		if got[k] == nil {
			got[k] = &bytes.Buffer{}
		}
		if o.Offset != int64(got[k].Len()) {
			sc.t.Errorf("trial %d, %s: a piece at %d comes where %d is next", o.Index, o.Stream, o.Offset, got[k].Len())
		}
		got[k].Write(o.Data)
	}
	if sc.lines == 0 {
		return
	}
	for i := range int64(sc.count) {
		for stream, want := range sc.outputOf(i) {
			b := got[key{i, stream}]
			if b == nil || b.String() != want {
				attempts, err := c.Trials().Attempts(sc.t.Context(), grid.TrialID{Sweep: sc.sweep, Index: i})
				sc.t.Errorf("trial %d, %s: got %q, want %q of the run %s; its attempts are %+v, %v", i, stream, b, want,
					runs[i], attempts, err)
			}
		}
	}
}

// outputOf is what a trial prints.
func (sc *scenario) outputOf(index int64) map[string]string {
	name := grid.TrialID{Sweep: sc.sweep, Index: index}.String()
	var b strings.Builder
	for n := range sc.lines {
		fmt.Fprintf(&b, "%s line %d\n", name, n+1)
	}
	return map[string]string{"stdout": b.String(), "stderr": name + " said it all\n"}
}

// orphanLimit is how long what a dead agent has left behind may run: its shim waits ten seconds for
// another agent.
const orphanLimit = 20 * time.Second

// checkNothingRuns fails unless everything that trials have started is gone.
func (sc *scenario) checkNothingRuns() {
	sc.t.Helper()
	hosts.WaitFor(sc.t, orphanLimit, func() error {
		if left := processes(sc.t, sc.mark); len(left) > 0 {
			return fmt.Errorf("%d processes of trials are left: %v", len(left), left)
		}
		return nil
	})
}

// allAlive waits until every host that is on calls every node alive.
func (sc *scenario) allAlive() {
	sc.t.Helper()
	sc.WaitForAlive(hosts.Timeout)
}

// wait lets time pass: these tests are about time.
func wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// logAttempts logs the attempts of a test that has failed.
func (sc *scenario) logAttempts() {
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
	text, _ := os.ReadFile(sc.ledger.path)
	sc.t.Logf("the ledger:\n%s", tail(string(text)))
}

package worker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor/shim"
)

// agentVar is the variable that turns the test binary into a node agent that works until it is
// killed. Its value is a folder.
const agentVar = "WORKER_TEST_AGENT"

func agent(dir string) int {
	if err := work(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// work runs a node with a store and a worker, without a master.
func work(dir string) error {
	ctx, log := context.Background(), slog.New(slog.DiscardHandler)
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"), Logger: log})
	if err != nil {
		return err
	}
	store, err := server.OpenStore(ctx)
	if err != nil {
		return err
	}
	client, err := shim.Open(
		ctx, shim.Options{Dir: filepath.Join(dir, "shims"), Token: filepath.Base(dir), Logger: log},
	)
	if err != nil {
		return err
	}
	if err := lease(ctx, store); err != nil {
		return err
	}
	w, err := New(Config{
		Node: "n", Dir: dir, Master: store.Calls.LocalClient("n"), Files: store,
		Programs: Programs{Executor: client, Adopt: client},
		Machine:  inventory.Machine{CPUs: 4, Memory: 8 << 30}, Logger: log,
	})
	if err != nil {
		return err
	}
	if err := w.recovery.run(ctx); err != nil {
		return err
	}
	return w.Run(ctx)
}

// lease leases each trial of the only sweep once, as a master does.
func lease(ctx context.Context, store *jetstream.Store) error {
	records, err := store.Records.All(ctx)
	if err != nil {
		return err
	}
	present, err := store.Queue.List(ctx)
	if err != nil || len(present) > 0 {
		return err
	}
	r := records[0].Sweep
	for i := range r.Space.Count() {
		if _, err := store.Queue.Publish(
			ctx, jetstream.Lease{Sweep: r.ID, Lo: i, Hi: i + 1, Attempt: 1, Shape: string(r.Lane())},
		); err != nil {
			return err
		}
	}
	return nil
}

// TestAttemptSurvivesAKilledAgent kills the whole node agent, including its store, three times
// while attempts are running.
func TestAttemptSurvivesAKilledAgent(t *testing.T) {
	a := newAgents(t)
	a.dir = filepath.Join(t.TempDir(), a.options.Token)
	a.options.Dir = filepath.Join(a.dir, "shims")
	a.store.Close()
	r, marks := a.prepare(2)
	for range 3 {
		a.killedAfter(func() {
			for i := range 2 {
				a.awaitFile(filepath.Join(marks, fmt.Sprintf("began-%d", i)))
				_ = os.Remove(filepath.Join(marks, fmt.Sprintf("began-%d", i)))
			}
		})
	}
	if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.reopen()
	a.startNext()
	a.run()
	for _, e := range a.finished(r.ID, 2) {
		if e.Result.Class != grid.ClassExit || e.Result.ExitCode != 7 {
			t.Errorf("result: got %+v, want exit code 7", e.Result)
		}
		if got, want := a.storedOutput(r.ID, e.Result, e.Run), fmt.Sprintf(
			"one of t-1/%d\ntwo\n", e.Index,
		); got != want {
			t.Errorf("output: got %q, want %q", got, want)
		}
	}
	a.stop()
	if all := a.finished(r.ID, 2); len(all) != 2 {
		t.Errorf("results: got %d, want 2", len(all))
	}
}

// reopen opens the store once the last agent has released it: a process that the agent was just
// starting when it was killed holds its files a moment longer.
func (a *agents) reopen() {
	a.t.Helper()
	var server *jetstream.Server
	eventually(a.t, "the store to be free", func() (ok bool) {
		var err error
		server, err = jetstream.Start(jetstream.Config{Dir: filepath.Join(a.dir, "jetstream"), Logger: logger(a.t)})
		return err == nil
	})
	a.t.Cleanup(server.Close)
	store, err := server.OpenStore(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	a.store = store
	a.t.Cleanup(store.Close)
}

// prepare stores a sweep of n trials in the store of the agents to come. The trials report
// repeatedly that they are running, until a file appears that lets them end.
func (a *agents) prepare(n int) (*grid.Sweep, string) {
	a.t.Helper()
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(a.dir, "jetstream"), Logger: logger(a.t)})
	if err != nil {
		a.t.Fatal(err)
	}
	defer server.Close()
	if a.store, err = server.OpenStore(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	defer a.store.Close()
	r, marks := a.scriptedSweep(
		n,
		`echo "one of $MLF_TRIAL"; while ! test -e $MARKS/go; do echo x >$MARKS/began-${MLF_TRIAL#*/}; sleep 0.02; done; echo two; exit 7`,
		nil,
	)
	return r, marks
}

// killedAfter runs an agent as a separate process until the func returns, and then kills it.
func (a *agents) killedAfter(until func()) {
	a.t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), agentVar+"="+a.dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	until()
}

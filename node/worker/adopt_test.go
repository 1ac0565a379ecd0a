package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor/shim"
	"mlfnode/node/worker/devices"
)

// agents is a sequence of workers over one store and one folder; each takes over the shims that the
// previous one left.
type agents struct {
	*harness
	options shim.Options
	client  *shim.Client
	gpus    *inventorytest.Fake // of the machine; nil if it has none
}

func newAgents(t *testing.T) *agents {
	t.Helper()
	s := &harness{t: t, store: openStore(t, filepath.Join(t.TempDir(), "jetstream")), dir: t.TempDir()}
	return &agents{harness: s, options: shim.Options{
		Dir: filepath.Join(s.dir, "shims"), Logger: logger(t),
		Token: fmt.Sprintf("worker-test-%d-%x", os.Getpid(), time.Now().UnixNano()),
	}}
}

// startNext makes the next agent: it takes over shims and reports what has ended, but does not run
// yet.
func (a *agents) startNext() {
	a.t.Helper()
	client, err := shim.Open(a.t.Context(), a.options)
	if err != nil {
		a.t.Fatal(err)
	}
	a.client = client
	a.t.Cleanup(func() { client.Close() })
	c := Config{
		Node: "n", Dir: a.dir, Master: a.store.Calls.LocalClient("n"), Files: a.store,
		Programs: Programs{Executor: client, Adopt: client},
		Machine:  inventory.Machine{CPUs: 4, Memory: 8 << 30}, Logger: logger(a.t),
	}
	var m inventory.Machine
	if a.gpus != nil {
		c.GPUs = GPUs{Usage: a.gpus, Policy: Policy{Reserve: DefaultReserve, Foreign: devices.Avoid}}
		a.gpus.Read(a.t.Context(), &m)
	}
	if a.Worker, err = New(c); err != nil {
		a.t.Fatal(err)
	}
	a.Devices.SetMachine(m)
	if err := a.recovery.run(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
}

// handOver ends the agent and leaves its attempts running.
func (a *agents) handOver() {
	a.t.Helper()
	a.SetHandover(true)
	a.stop()
	a.client.Leave()
}

// scriptedSweep creates a sweep of shell scripts that mark their start with a file in the folder
// $MARKS.
func (a *agents) scriptedSweep(n int, text string, edit func(*grid.Sweep)) (*grid.Sweep, string) {
	a.t.Helper()
	marks := a.t.TempDir()
	return a.sweep("t-1", n, 1, func(r *grid.Sweep) {
		r.Task.Command = []string{"/bin/sh", "-c", text, "sh"}
		r.Environ = append(r.Environ, "MARKS="+marks)
		if edit != nil {
			edit(r)
		}
	}), marks
}

func (a *agents) awaitFile(path string) {
	a.t.Helper()
	eventually(a.t, "file "+filepath.Base(path), func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// storedOutput joins the stored output of a run as readers do: output that was stored twice counts
// once.
func (a *agents) storedOutput(id grid.SweepID, r *grid.Result, run string) string {
	a.t.Helper()
	var text []byte
	err := a.store.Logs.Read(a.t.Context(), id, jetstream.LogRange{}, func(seq uint64, chunks []jetstream.Chunk) error {
		for _, c := range chunks {
			if c.Run != run || c.Stream != streamOut || seq < r.Log.First {
				continue
			}
			if c.Offset > int64(len(text)) {
				a.t.Errorf("output of %s: got a piece at %d, want one at %d", run, c.Offset, len(text))
			}
			if end := c.Offset + int64(len(c.Data)); end > int64(len(text)) {
				text = append(text, c.Data[int64(len(text))-c.Offset:]...)
			}
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

const untilGo = `echo "one of $MLF_TRIAL"; echo x >$MARKS/began; while ! test -e $MARKS/go; do sleep 0.01; done; echo two; echo left >$MLF_OUT/model; exit 7`

// TestAttemptGoesOnUnderTheNextAgent replaces the agent twice while an attempt runs.
func TestAttemptGoesOnUnderTheNextAgent(t *testing.T) {
	a := newAgents(t)
	r, marks := a.scriptedSweep(1, untilGo, nil)
	a.startNext()
	a.lease(r, 0, 1)
	a.run()
	a.awaitFile(filepath.Join(marks, "began"))
	for range 2 {
		a.handOver()
		a.startNext()
		if got := a.dispatcher.allocator.Usage().FreeCPUs; got != 3*grid.One {
			t.Errorf("free processors: got %v, want 3 beside the attempt that goes on", got)
		}
		a.run()
	}
	if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.released(r.ID, 1)
	all := a.finished(r.ID, 1)
	if len(all) != 1 {
		t.Fatalf("results: got %d, want one", len(all))
	}
	res := all[0].Result
	if res.Class != grid.ClassExit || res.ExitCode != 7 || res.Files.Count != 1 {
		t.Errorf("result: got %+v, want exit code 7 and one file", res)
	}
	if got, want := a.storedOutput(r.ID, res, all[0].Run), "one of t-1/0\ntwo\n"; got != want {
		t.Errorf("output: got %q, want %q", got, want)
	}
	if res.Log.Bytes != int64(len("one of t-1/0\ntwo\n")) {
		t.Errorf("output: got %d bytes, want each counted once", res.Log.Bytes)
	}
	eventually(t, "the lease to be acknowledged", func() bool {
		present, err := a.store.Queue.List(t.Context())
		return err == nil && len(present) == 0
	})
	a.stop()
	if a.dispatcher.allocator.Usage().FreeCPUs != 4*grid.One {
		t.Errorf("free processors: got %v, want all", a.dispatcher.allocator.Usage().FreeCPUs)
	}
	if left, _ := os.ReadDir(filepath.Join(a.dir, "spool")); len(left) > 0 {
		t.Errorf("spools left: %v", left)
	}
}

// TestAdoptedLeaseGivesItsRestBack replaces the agent while the second trial of a wide lease runs:
// the trials after it are returned while it continues.
func TestAdoptedLeaseGivesItsRestBack(t *testing.T) {
	a := newAgents(t)
	r, marks := a.scriptedSweep(5,
		`case $MLF_TRIAL in */1) echo x >$MARKS/began; while ! test -e $MARKS/go; do sleep 0.01; done;; esac`,
		func(r *grid.Sweep) {
			r.MaxParallel = 1
		})
	a.startNext()
	a.lease(r, 0, 5)
	a.run()
	a.awaitFile(filepath.Join(marks, "began"))
	a.handOver()
	a.startNext()
	if held := a.Worker.heartbeats.message().Leases; len(held) != 1 || held[0].Hi != 2 || len(held[0].Attempts) != 1 {
		t.Errorf("the next agent holds %+v, want the trials up to the one that goes on", held)
	}
	a.run()
	if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.released(r.ID, 1)
	a.stop()
}

// TestAdoptedAttemptKeepsItsDevice adopts a program whose environment does not distinguish it from
// other users' programs. The next agent does not treat it as foreign, and it keeps its GPU.
func TestAdoptedAttemptKeepsItsDevice(t *testing.T) {
	a := newAgents(t)
	var err error
	if a.gpus, err = inventorytest.New("1xA100-40", t.Name(), ""); err != nil {
		t.Fatal(err)
	}
	r, marks := a.scriptedSweep(1, "echo $$ >$MARKS/pid.new; mv $MARKS/pid.new $MARKS/pid; exec env -i sleep 1000",
		func(r *grid.Sweep) {
			r.Task.Resources.GPUs = grid.One
		})
	a.startNext()
	a.lease(r, 0, 1)
	a.run()
	a.awaitFile(filepath.Join(marks, "pid"))
	pid, err := os.ReadFile(filepath.Join(marks, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.gpus.Do("run 0 " + strings.TrimSpace(string(pid)) + " 3GiB"); err != nil {
		t.Fatal(err)
	}
	a.handOver()
	a.startNext()
	a.run()
	var m inventory.Machine
	a.gpus.Read(t.Context(), &m)
	eventually(t, "the GPU to be looked at", func() bool { return a.Devices.Annotate(m).GPUs[0].State != "dirty" })
	if g := a.Devices.Annotate(m).GPUs[0]; g.State != "ready" || !slices.Equal(g.Trials, []string{"t-1/0"}) {
		t.Errorf("got %s: %s; trials %v", g.State, g.Why, g.Trials)
	}
	if b := a.dispatcher.allocator.Usage().Devices[0]; b.Free != 0 {
		t.Errorf("%s of the GPU is free", b.Free)
	}
	a.stop()
	if res := a.finished(r.ID, 1)[0].Result; len(res.Usage.GPU) != 1 || res.Usage.GPU[0].Peak != 3<<30 {
		t.Errorf("it used %+v", res.Usage.GPU)
	}
}

// TestAttemptThatEndedWhileNobodyWasThere checks that the attempt is reported with its true
// outcome, by its shim or from the shim's record.
func TestAttemptThatEndedWhileNobodyWasThere(t *testing.T) {
	for _, shimGone := range []bool{false, true} {
		t.Run("shim gone "+strconv.FormatBool(shimGone), func(t *testing.T) {
			a := newAgents(t)
			r, marks := a.scriptedSweep(1, "echo $PPID >$MARKS/shim.new; mv $MARKS/shim.new $MARKS/shim;"+untilGo, nil)
			a.startNext()
			a.lease(r, 0, 1)
			a.run()
			a.awaitFile(filepath.Join(marks, "began"))
			a.handOver()
			if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			a.awaitFile(filepath.Join(a.dir, "spool", "1", "outcome.json"))
			if shimGone {
				killFrom(t, filepath.Join(marks, "shim"))
			}
			a.startNext()
			all := a.finished(r.ID, 1)
			if res := all[0].Result; res.Class != grid.ClassExit || res.ExitCode != 7 ||
				!strings.Contains(res.Reason, "exit code 7") {
				t.Errorf("result: got %+v, want exit code 7", res)
			}
		})
	}
}

// TestAdoptedAttemptObeysItsSweep cancels the sweep of an adopted attempt, once while no agent is
// running.
func TestAdoptedAttemptObeysItsSweep(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run("away "+strconv.FormatBool(away), func(t *testing.T) {
			a := newAgents(t)
			r, marks := a.scriptedSweep(1, untilGo, nil)
			a.startNext()
			a.lease(r, 0, 1)
			a.run()
			a.awaitFile(filepath.Join(marks, "began"))
			a.handOver()
			if away {
				a.setState(r, grid.SweepCancelled)
			}
			a.startNext()
			a.run()
			if !away {
				a.setState(r, grid.SweepCancelled)
			}
			if res := a.finished(r.ID, 1)[0].Result; res.Class != grid.ClassCancel {
				t.Errorf("result: got %+v, want it cancelled", res)
			}
			a.released(r.ID, 1)
		})
	}
}

// TestAgentStopsWhatItHasAdopted ends the second agent without a handover.
func TestAgentStopsWhatItHasAdopted(t *testing.T) {
	a := newAgents(t)
	r, marks := a.scriptedSweep(1, untilGo, nil)
	a.startNext()
	a.lease(r, 0, 1)
	a.run()
	a.awaitFile(filepath.Join(marks, "began"))
	a.handOver()
	a.startNext()
	a.run()
	a.stop()
	if res := a.finished(r.ID, 1)[0].Result; res.Class != grid.ClassHalt {
		t.Errorf("result: got %+v, want it halted", res)
	}
}

// TestOtherTrialsOfALeaseAreGivenBack leaves one trial of a lease of three running.
func TestOtherTrialsOfALeaseAreGivenBack(t *testing.T) {
	a := newAgents(t)
	r, marks := a.scriptedSweep(3, untilGo, func(r *grid.Sweep) { r.MaxParallel = 1 })
	a.startNext()
	a.lease(r, 0, 3)
	a.run()
	a.awaitFile(filepath.Join(marks, "began"))
	a.handOver()
	a.startNext()
	a.run()
	if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.released(r.ID, 1)
	if all := a.finished(r.ID, 1); len(all) != 1 || all[0].Index != 0 {
		t.Errorf("results: got %+v, want the one of trial 0", all)
	}
}

// TestShimDiesUnderAnAdoptedAttempt kills the shim, which also ends the attempt.
func TestShimDiesUnderAnAdoptedAttempt(t *testing.T) {
	a := newAgents(t)
	r, marks := a.scriptedSweep(1, "echo $PPID >$MARKS/shim;"+untilGo, nil)
	a.startNext()
	a.lease(r, 0, 1)
	a.run()
	a.awaitFile(filepath.Join(marks, "began"))
	a.handOver()
	a.startNext()
	a.run()
	killFrom(t, filepath.Join(marks, "shim"))
	if res := a.finished(r.ID, 1)[0].Result; res.Class != grid.ClassNode ||
		!strings.Contains(res.Reason, "its shim died") {
		t.Errorf("result: got %+v, want it lost with its shim", res)
	}
	a.released(r.ID, 1)
}

// killFrom kills the process whose PID is in a file.
func killFrom(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
}

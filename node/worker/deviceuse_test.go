package worker

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/worker/devices"
)

// newWatchedHarness returns a harness whose worker watches scripted GPUs.
func newWatchedHarness(t *testing.T, description string, p program) (*harness, *inventorytest.Fake) {
	t.Helper()
	fake, err := inventorytest.New(description, t.Name(), "")
	if err != nil {
		t.Fatal(err)
	}
	s := newHarness(t, p)
	s.trials.attempts.spools.close()
	s.Worker, err = New(Config{
		Node: "n", Dir: s.dir, Master: s.store.Calls.LocalClient("n"), Files: s.store, Programs: Programs{Executor: p},
		Machine: inventory.Machine{CPUs: 4, Memory: 8 << 30}, Logger: logger(t),
		GPUs: GPUs{Usage: fake, Policy: Policy{Reserve: DefaultReserve, Foreign: devices.Avoid}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.trials.attempts.spools.close)
	s.stopTimeout = 100 * time.Millisecond
	var m inventory.Machine
	fake.Read(t.Context(), &m)
	s.Devices.SetMachine(m)
	return s, fake
}

// holdMemory is a program that holds memory of its GPU until it is told to end.
func holdMemory(t *testing.T, fake *inventorytest.Fake, a *executor.Attempt, size string, until <-chan time.Time) {
	uuid, _ := lookupVariable(a.Env, visibleDevices)
	cmd := exec.Command("/bin/sleep", "1000")
	trial, _ := lookupVariable(a.Env, "MLF_TRIAL")
	if cmd.Env = a.Env; strings.HasSuffix(trial, "1") {
		cmd.Env = []string{"NOTHING=1"} // it can be identified only by its PID
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	a.Started(executor.Program{PID: cmd.Process.Pid})
	if err := fake.Do(fmt.Sprintf("run %s %d %s", uuid, cmd.Process.Pid, size)); err != nil {
		t.Error(err)
	}
	<-until
	cmd.Process.Kill()
	cmd.Wait()
}

// TestNoDeviceTwice runs more trials than there are GPUs. No GPU runs two at the same time, and
// results report how much each had.
func TestNoDeviceTwice(t *testing.T) {
	var mu sync.Mutex
	at := map[string]int{}
	var fake *inventorytest.Fake
	ready := make(chan struct{})
	s, f := newWatchedHarness(t, "2xA100-40", func(_ context.Context, a *executor.Attempt) executor.Outcome {
		<-ready
		uuid, _ := lookupVariable(a.Env, visibleDevices)
		mu.Lock()
		if at[uuid]++; at[uuid] > 1 {
			t.Errorf("%d trials on %s", at[uuid], uuid)
		}
		mu.Unlock()
		holdMemory(t, fake, a, "3GiB", time.After(2*time.Second))
		mu.Lock()
		at[uuid]--
		mu.Unlock()
		return succeeded()
	})
	fake = f
	close(ready)
	r := s.sweep("t-1", 4, 1, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One })
	for i := range int64(4) {
		s.lease(r, i, i+1)
	}
	s.run()
	ended := 0
	for _, e := range s.events(r.ID, finishedAll(4)) {
		if e.Kind != grid.Finished {
			continue
		}
		ended++
		if use := e.Result.Usage.GPU; len(use) != 1 || use[0].Peak < 3<<30 || use[0].UUID != e.Result.Devices[0] {
			t.Errorf("trial %d: got %+v on %v", e.Index, use, e.Result.Devices)
		}
	}
	if len(at) != 2 || ended != 4 {
		t.Errorf("%d trials ended on %d GPUs", ended, len(at))
	}
}

// finishedAll waits for n trials to end.
func finishedAll(n int) func([]grid.Event) bool {
	return func(all []grid.Event) bool {
		ended := 0
		for _, e := range all {
			if e.Kind == grid.Finished {
				ended++
			}
		}
		return ended >= n
	}
}

// TestBrokenDevice breaks a GPU under a trial: the failure is the device's, and the next trial gets
// another one.
func TestBrokenDevice(t *testing.T) {
	var mu sync.Mutex
	var used []string
	var fake *inventorytest.Fake
	ready := make(chan struct{})
	s, f := newWatchedHarness(t, "2xA100-40", func(_ context.Context, a *executor.Attempt) executor.Outcome {
		<-ready
		uuid, _ := lookupVariable(a.Env, visibleDevices)
		mu.Lock()
		used = append(used, uuid)
		first := len(used) == 1
		mu.Unlock()
		if !first {
			return succeeded()
		}
		if err := fake.Do("xid " + uuid + " 48"); err != nil {
			t.Error(err)
		}
		return executor.Outcome{
			Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1", Start: time.Now(), End: time.Now(),
		}
	})
	fake = f
	close(ready)
	r := s.sweep("t-1", 2, 1, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One; r.MaxParallel = 1 })
	s.lease(r, 0, 1)
	s.run()
	events := s.events(r.ID, finishedAll(1))
	first := events[slices.IndexFunc(events, func(e grid.Event) bool { return e.Kind == grid.Finished })].Result
	if first.Class != grid.ClassGPUFault || first.Rule != "xid/48" || first.Device == "" ||
		!slices.Equal(first.Devices, []string{first.Device}) {
		t.Errorf("got %+v", first)
	}
	s.lease(r, 1, 2)
	s.events(r.ID, finishedAll(2))
	mu.Lock()
	defer mu.Unlock()
	if len(used) != 2 || used[1] == used[0] || first.Device != used[0] {
		t.Errorf("trials ran on %v, and %s is broken", used, first.Device)
	}
	var m inventory.Machine
	fake.Read(t.Context(), &m)
	for _, g := range s.Devices.Annotate(m).GPUs {
		if sick := g.UUID == used[0]; sick != (g.State == "sick") || sick != strings.Contains(g.Why, "Xid 48") {
			t.Errorf("got %+v", g)
		}
	}
	s.heartbeats.apply(&jetstream.Directives{Drain: true})
	s.heartbeats.apply(&jetstream.Directives{})
	s.Devices.watch.SetMachine(m)
	if got := s.Devices.Annotate(m).GPUs[0]; got.State == "sick" {
		t.Errorf("after the node was drained and undrained: got %+v", got)
	}
}

// TestBrokenDeviceEndsALease breaks a GPU under the first trial of a lease of many: the others do
// not run on it.
func TestBrokenDeviceEndsALease(t *testing.T) {
	var mu sync.Mutex
	var used []string
	var fake *inventorytest.Fake
	ready := make(chan struct{})
	s, f := newWatchedHarness(t, "1xA100-40", func(_ context.Context, a *executor.Attempt) executor.Outcome {
		<-ready
		uuid, _ := lookupVariable(a.Env, visibleDevices)
		mu.Lock()
		used = append(used, uuid)
		mu.Unlock()
		if err := fake.Do("xid " + uuid + " 79"); err != nil {
			t.Error(err)
		}
		return executor.Outcome{
			Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1", Start: time.Now(), End: time.Now(),
		}
	})
	fake = f
	close(ready)
	r := s.sweep("t-1", 9, 1, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One })
	s.lease(r, 0, 9)
	s.run()
	s.events(r.ID, func(all []grid.Event) bool {
		return slices.ContainsFunc(all, func(e grid.Event) bool { return e.Kind == grid.Released })
	})
	mu.Lock()
	defer mu.Unlock()
	if len(used) != 1 {
		t.Errorf("%d trials ran on a broken GPU, want the one under which it broke", len(used))
	}
}

// TestSettingsAsOthersSeeThem checks that other nodes count only those GPUs that a node's settings
// make available, whether they know the GPUs individually or only by kind.
func TestSettingsAsOthersSeeThem(t *testing.T) {
	s, fake := newWatchedHarness(t, "2xA100-40", nil)
	s.Devices.SetPolicy(Policy{Reserve: 30 << 30})
	s.cfg.Policy.Share = 2
	var m inventory.Machine
	fake.Read(t.Context(), &m)
	m = s.Devices.Annotate(m)
	for _, more := range []bool{false, true} {
		m.More = more
		for i := range m.Groups { // they have not been examined yet
			m.Groups[i].Ready = m.Groups[i].Total
		}
		n := NodeOf(4, 8<<30, &m)
		if got := n.Slots(grid.Resources{GPUs: 250}); got != 4 {
			t.Errorf("more %v: got room for %d trials with a quarter, want two on each GPU", more, got)
		}
		if r := n.NeverFits(grid.Resources{GPUMemory: 20 << 30}); r.Code != grid.RefusedMemory {
			t.Errorf("more %v: a share of 20 GiB: got %v, want it refused", more, r)
		}
		if r := n.NeverFits(grid.Resources{GPUs: grid.One, GPUMemory: 20 << 30}); r.Code != "" {
			t.Errorf("more %v: a whole GPU of 20 GiB: got %v", more, r)
		}
	}
	old := NodeOf(4, 8<<30, &inventory.Machine{GPUs: m.GPUs})
	if got := old.Slots(grid.Resources{GPUs: 250}); got != 8 {
		t.Errorf("a node that does not tell: got room for %d trials, want 8", got)
	}
}

// TestNodeAsOthersSeeIt counts what a node has published, without what its settings withhold from
// trials.
func TestNodeAsOthersSeeIt(t *testing.T) {
	gpu := func(index int, state string) inventory.GPU {
		return inventory.GPU{
			Index: index, UUID: fmt.Sprint("GPU-", index), Name: "A100", Memory: 40 << 30, State: state,
		}
	}
	m := &inventory.Machine{
		GPUs: []inventory.GPU{gpu(0, "ready"), gpu(1, "unused"), gpu(2, "sick"), gpu(3, "dirty"), gpu(4, "")},
	}
	n := NodeOf(4, 8<<30, m)
	one, four, five := grid.Resources{GPUs: grid.One}, grid.Resources{GPUs: 4 * grid.One},
		grid.Resources{GPUs: 5 * grid.One}
	if got := n.Slots(one); got != 3 {
		t.Errorf("got room for %d trials, want those of the GPUs that are in service", got)
	}
	if r := n.NeverFits(four); r.Code != "" {
		t.Errorf("four GPUs: got %v; one that is sick may come back", r)
	}
	if r := n.NeverFits(five); r.Code == "" {
		t.Error("five GPUs: a GPU that trials may not use counts")
	}
}

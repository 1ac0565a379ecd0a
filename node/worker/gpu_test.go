package worker

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
)

// withGPUs returns a machine with two GPUs, one of which is divided.
func withGPUs() inventory.Machine {
	return inventory.Machine{GPUs: []inventory.GPU{
		{Index: 0, UUID: "GPU-a", Name: "NVIDIA A100-SXM4-40GB", Memory: 40 << 30},
		{
			Index: 1, UUID: "GPU-b", Name: "NVIDIA A100-SXM4-40GB", Memory: 40 << 30, MIG: true,
			Instances: []inventory.Instance{{UUID: "MIG-c", Profile: "1g.5gb", Memory: 5 << 30}},
		},
		{Index: 2, UUID: "GPU-d", Name: "NVIDIA T4", Memory: 16 << 30},
	}}
}

// twoGPUs are the devices of that machine that trials may have.
func twoGPUs() []allocator.Device {
	m := withGPUs()
	return DevicesOf(&m, Policy{Reserve: 1 << 30})
}

// TestEnvironmentOfDevices runs one trial of each kind of request and checks the environment of its
// program.
func TestEnvironmentOfDevices(t *testing.T) {
	none := map[string]string{"MLF_TRIAL_CPUS": "1", "MLF_TRIAL_MEMORY": "-", "MLF_TRIAL_GPUS": "-",
		"CUDA_VISIBLE_DEVICES": "-", "MLF_GPUS": "-", "TF_FORCE_GPU_ALLOW_GROWTH": "-",
		"MLF_SLOT": "0", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
	for name, c := range map[string]struct {
		machine inventory.Machine
		edit    func(*grid.Sweep)
		want    map[string]string // "-" means not set
	}{
		"no GPUs here":    {inventory.Machine{}, nil, none},
		"none for trials": {withGPUs(), nil, map[string]string{"CUDA_VISIBLE_DEVICES": "", "MLF_GPUS": "-"}},
		"none asked for": {
			withGPUs(), nil, map[string]string{"MLF_TRIAL_GPUS": "none", "CUDA_VISIBLE_DEVICES": "", "MLF_GPUS": "-"},
		},
		"the shell's own": {
			withGPUs(), func(s *grid.Sweep) { s.Environ = append(s.Environ, "CUDA_VISIBLE_DEVICES=7") },
			map[string]string{"CUDA_VISIBLE_DEVICES": ""},
		},
		"the task's own": {
			withGPUs(), func(s *grid.Sweep) { s.Task.Env = map[string]string{"CUDA_VISIBLE_DEVICES": "7"} },
			map[string]string{"CUDA_VISIBLE_DEVICES": "7"},
		},
		"two, whatever is set": {withGPUs(), func(s *grid.Sweep) {
			s.Task.Resources.GPUs = 2000
			s.Task.Env = map[string]string{"CUDA_VISIBLE_DEVICES": "7"}
		}, map[string]string{
			"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-d", "MLF_GPUS": "0,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
			"TF_FORCE_GPU_ALLOW_GROWTH": "-",
		}},
		"more than two processors": {
			inventory.Machine{}, func(s *grid.Sweep) { s.Task.Resources.CPUs = 2500 },
			map[string]string{"OMP_NUM_THREADS": "3"},
		},
		"the shell's own defaults": {inventory.Machine{}, func(s *grid.Sweep) {
			s.Environ = append(s.Environ, "OMP_NUM_THREADS=7", "PYTHONUNBUFFERED=")
		},
			map[string]string{"OMP_NUM_THREADS": "7", "PYTHONUNBUFFERED": ""}},
		"the task's own defaults": {
			inventory.Machine{}, func(s *grid.Sweep) { s.Task.Env = map[string]string{"OMP_NUM_THREADS": "5"} },
			map[string]string{"OMP_NUM_THREADS": "5"},
		},
		"by index": {
			withGPUs(), func(s *grid.Sweep) { s.Task.Resources.GPUs, s.Task.GPUIDs = 2000, grid.GPUIDsIndex },
			map[string]string{"CUDA_VISIBLE_DEVICES": "0,2", "MLF_TRIAL_GPUS": "GPU-a,GPU-d"},
		},
		"a share": {withGPUs(), func(s *grid.Sweep) {
			s.Task.Resources.GPUs, s.Task.Resources.GPUModel = 250, "a100"
		}, map[string]string{
			"CUDA_VISIBLE_DEVICES": "GPU-a", "MLF_GPU_MEMORY": strconv.FormatInt(39<<30/4, 10),
			"TF_FORCE_GPU_ALLOW_GROWTH":     "true",
			"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "FLAGS_fraction_of_gpu_memory_to_use": "0.25",
		}},
		"a share with growth as the user says": {withGPUs(), func(s *grid.Sweep) {
			s.Task.Resources.GPUMemory, s.Environ = 8<<30, append(s.Environ, "TF_FORCE_GPU_ALLOW_GROWTH=false")
		}, map[string]string{"TF_FORCE_GPU_ALLOW_GROWTH": "false", "MLF_GPU_MEMORY": strconv.Itoa(8 << 30)}},
		"an instance": {withGPUs(), func(s *grid.Sweep) {
			s.Task.Resources.GPUProfile, s.Task.GPUIDs = "1g.5gb", grid.GPUIDsIndex
		}, map[string]string{
			"CUDA_VISIBLE_DEVICES": "MIG-c", "MLF_GPUS": "1", "MLF_GPU_MEMORY": strconv.Itoa(5 << 30),
			"TF_FORCE_GPU_ALLOW_GROWTH": "-",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan []string, 1)
			s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
				seen <- a.Env
				return succeeded()
			})
			s.cfg.Policy = Policy{Reserve: 1 << 30, None: name == "none for trials"}
			s.Devices.SetMachine(c.machine)
			r := s.sweep("t-1", 1, 1, c.edit)
			s.lease(r, 0, 1)
			s.run()
			env := receive(t, "a trial", seen)
			for name, want := range c.want {
				got, ok := lookupVariable(env, name)
				if ok != (want != "-") || ok && got != want {
					t.Errorf("%s: got %q (set: %v), want %q", name, got, ok, want)
				}
			}
		})
	}
}

// TestDevicesOfEvents checks that events and results name the devices of an attempt.
func TestDevicesOfEvents(t *testing.T) {
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome { return succeeded() })
	s.Devices.SetDevices(twoGPUs())
	r := s.sweep("t-1", 1, 1, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One })
	if _, err := s.store.Queue.Publish(
		t.Context(), jetstream.Lease{Sweep: r.ID, Lo: 0, Hi: 1, Attempt: 2, Shape: string(r.Lane())},
	); err != nil {
		t.Fatal(err)
	}
	s.run()
	events := s.events(r.ID, func(all []grid.Event) bool {
		return slices.ContainsFunc(all, func(e grid.Event) bool { return e.Kind == grid.Finished })
	})
	for _, e := range events {
		got := e.Devices
		if e.Kind == grid.Finished {
			got = e.Result.Devices
		}
		if (e.Kind == grid.Started || e.Kind == grid.Finished) && !slices.Equal(got, []string{"GPU-d"}) {
			t.Errorf("%s: got devices %v, want the smaller GPU alone", e.Kind, got)
		}
	}
}

// TestLanesOfTheRecord takes a lease in a lane that the master has added for a trial with greater
// needs: the trial gets what the lane says.
func TestLanesOfTheRecord(t *testing.T) {
	memory := make(chan int64, 1)
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		memory <- a.Memory
		return succeeded()
	})
	r := s.sweep("t-1", 2, 1, func(r *grid.Sweep) { r.Task.Resources.Memory = 1 << 30 })
	record, err := s.store.Records.Load(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	more := grid.Resources{CPUs: grid.One, Memory: 3 << 30}
	lane := grid.LaneOf(0, more, "")
	record.Lanes = map[grid.Lane]grid.Resources{lane: more}
	if _, err := s.store.Records.Update(t.Context(), &record); err != nil {
		t.Fatal(err)
	}
	s.lease(r, 0, 1)
	s.run()
	if got := receive(t, "the first trial", memory); got != 1<<30 {
		t.Errorf("got %d bytes, want what the task says", got)
	}
	if _, err := s.store.Queue.Publish(
		t.Context(), jetstream.Lease{Sweep: r.ID, Lo: 1, Hi: 2, Attempt: 1, Shape: string(lane)},
	); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, "the trial of the other lane", memory); got != 3<<30 {
		t.Errorf("got %d bytes, want what the lane says", got)
	}
}

// TestWholeDevicesOneAtATime runs five trials with one GPU each on a machine with two: never three
// at once, and never two on one.
func TestWholeDevicesOneAtATime(t *testing.T) {
	begun, end := make(chan string), make(chan struct{})
	s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		uuid, _ := lookupVariable(a.Env, "CUDA_VISIBLE_DEVICES")
		select {
		case begun <- uuid:
		case <-ctx.Done():
			return executor.Outcome{Class: grid.ClassHalt}
		}
		select {
		case <-end:
		case <-ctx.Done():
		}
		return succeeded()
	})
	s.Devices.SetDevices(twoGPUs())
	r := s.sweep("t-1", 5, 0.5, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One })
	for i := range int64(5) {
		s.lease(r, i, i+1)
	}
	s.run()
	first, second := receive(t, "a trial", begun), receive(t, "a second trial", begun)
	if first == second {
		t.Fatalf("both have %s", first)
	}
	for range 3 {
		select {
		case uuid := <-begun:
			t.Fatalf("a third trial began, on %s", uuid)
		default:
		}
		end <- struct{}{}
		receive(t, "the next trial", begun)
	}
	if waits := s.dispatcher.fairShare.refusals(10); waits[r.Lane()].Code != "" &&
		waits[r.Lane()].Code != grid.RefusedBusy {
		t.Errorf("got %+v, want busy", waits)
	}
	close(end)
}

// TestDevicesOfPolicy determines which devices of a machine trials may have.
func TestDevicesOfPolicy(t *testing.T) {
	m := &inventory.Machine{GPUs: []inventory.GPU{
		{Index: 0, UUID: "GPU-a", Memory: 8 << 30},
		{Index: 1, UUID: "GPU-b", Memory: 8 << 30, Mode: inventory.Exclusive},
		{Index: 2, UUID: "GPU-c", Memory: 8 << 30, Problem: "lost"},
		{Index: 3, UUID: "GPU-d", Memory: 8 << 30, Mode: inventory.Prohibited},
		{Index: 4, Problem: "no handle"},
		{Index: 5, UUID: "GPU-e", MIG: true, Instances: []inventory.Instance{{UUID: "MIG-f", Memory: 1 << 30}}},
		{Index: 6, UUID: "GPU-g", MIG: true},
	}}
	for name, c := range map[string]struct {
		p    Policy
		want string
	}{
		"all":      {Policy{Reserve: 1 << 30}, "GPU-a:7 GPU-b:7:exclusive GPU-c:7:sick GPU-d:7:sick MIG-f:1"},
		"none":     {Policy{None: true}, ""},
		"by index": {Policy{Use: []string{"1", "5"}}, "GPU-b:8:exclusive MIG-f:1"},
		"by uuid":  {Policy{Use: []string{"GPU-a", "MIG-f"}}, "GPU-a:8 MIG-f:1"},
		"too much": {Policy{Reserve: 9 << 30, Use: []string{"0"}}, "GPU-a:0"},
	} {
		var got []string
		for _, d := range DevicesOf(m, c.p) {
			text := d.UUID + ":" + strconv.FormatInt(d.Memory>>30, 10)
			if d.Exclusive {
				text += ":exclusive"
			}
			if d.State != allocator.Ready {
				text += ":" + string(d.State)
			}
			got = append(got, text)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: got %s, want %s", name, text, c.want)
		}
	}
}

// TestTrialsForOtherNodes runs sweeps that name nodes: this node runs those that name it or one of
// its labels, and reports the reason for the others.
func TestTrialsForOtherNodes(t *testing.T) {
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome { return succeeded() })
	s.cfg.Labels = []string{"fast"}
	sets := map[grid.SweepID]grid.NodeSet{
		"t-1": "label=fast", "t-2": "other,label=slow", "t-3": grid.NodeSet("other," + s.cfg.Node),
	}
	var others *grid.Sweep
	for id, nodes := range sets {
		r := s.sweep(id, 1, 1, func(r *grid.Sweep) { r.Task.Resources.Nodes = nodes })
		s.lease(r, 0, 1)
		if id == "t-2" {
			others = r
		}
	}
	s.run()
	s.finished("t-1", 1)
	s.finished("t-3", 1)
	eventually(
		t, "the refusal of the third", func() bool { return s.WaitingLanes()[others.Lane()].Code == grid.RefusedNodes },
	)
	if got, want := s.WaitingLanes()[others.Lane()].String(),
		"is not one of the nodes that the task names: other, label=slow"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

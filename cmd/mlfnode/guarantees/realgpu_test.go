package guarantees

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/node/api"
)

// realGPU is a machine with a GPU on which nothing else runs.
type realGPU struct {
	*home
	gpu     inventory.GPU
	watcher *inventory.Watcher
	script  string
}

// newRealGPU leaves the test out on a machine without a GPU.
func newRealGPU(t *testing.T) *realGPU {
	t.Helper()
	m, err := inventory.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.GPUs) == 0 || m.GPUs[0].MIG || m.GPUs[0].Problem != "" {
		t.Skipf("needs a GPU: %+v", m)
	}
	gridtest.Program(t, "python3")
	script, err := filepath.Abs("testdata/gpu.py")
	if err != nil {
		t.Fatal(err)
	}
	r := &realGPU{home: newHome(t, "MLF_GPUS_USE="+m.GPUs[0].UUID), gpu: m.GPUs[0], script: script}
	r.watcher = inventory.NewWatcher(m, nil, nil)
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan error, 1)
	go func() { ended <- r.watcher.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

// use is what the GPU holds now.
func (r *realGPU) use() inventory.Use {
	r.t.Helper()
	s, err := r.watcher.Sample(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	u, ok := s.Find(r.gpu.UUID)
	if !ok {
		r.t.Fatalf("the driver does not show %s", r.gpu.UUID)
	}
	return u
}

// compute counts the programs that compute on the GPU.
func (r *realGPU) compute() int {
	n := 0
	for _, p := range r.use().Processes {
		if !p.Graphics {
			n++
		}
	}
	return n
}

// sweep runs trials of the program to their ends, whatever these are, and looks at the GPU
// meanwhile. It returns the trials.
func (r *realGPU) sweep(resources string, count int, look func(), args ...any) []api.Trial {
	r.t.Helper()
	command := []string{"python3", r.script}
	for _, a := range args {
		command = append(command, fmt.Sprint(a))
	}
	text, err := json.Marshal(command)
	if err != nil {
		r.t.Fatal(err)
	}
	project := r.t.TempDir()
	yaml := fmt.Sprintf("name: real\ntasks:\n  run:\n    command: %s\n    resources: %s\n    retries: 0\n", text,
		resources)
	if err := os.WriteFile(filepath.Join(project, "project.yaml"), []byte(yaml), 0o644); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.command("sweep", project, "--set", fmt.Sprintf("i=0:%d", count))
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-ended: // with 1 when trials fail
			running = false
		case <-tick.C:
			look()
		}
	}
	r.t.Log(tail(out.String()))
	var all []api.Trial
	r.read(func(c *api.Client) { all = trials(r.t, c) })
	return all
}

// TestRealGPU uses a real GPU in each way that scripted ones are used elsewhere. It is left out on
// machines without one.
func TestRealGPU(t *testing.T) {
	r := newRealGPU(t)
	before := r.use()
	if r.compute() > 0 {
		t.Skipf("other programs compute on the GPU: %+v", before)
	}
	most := 0
	count := func() { most = max(most, r.compute()) }

	checkResults(t, r.sweep("{cpus: 0.1, gpus: 0.25}", 4, count, "hold", 512, 8), 4, grid.Succeeded)
	if most != 4 {
		t.Errorf("of four shares of a quarter at most %d ran at one time", most)
	}
	most = 0
	checkResults(t, r.sweep("{cpus: 0.1, gpus: 1}", 3, count, "hold", 1024, 3), 3, grid.Succeeded)
	if most != 1 {
		t.Errorf("%d trials with a whole GPU had it at one time", most)
	}

	full := r.sweep("{cpus: 0.1, gpus: 1}", 1, func() {}, "fill")
	if full[0].Class != grid.ClassCUDAMemory {
		t.Errorf("a program that takes all memory: got %s: %s", full[0].Class, full[0].Reason)
	}
	bad := r.sweep("{cpus: 0.1, gpus: 1}", 1, func() {}, "bad")
	if bad[0].Class != grid.ClassCUDAError {
		t.Errorf("an illegal access: got %s: %s", bad[0].Class, bad[0].Reason)
	}
	// the GPU stays in service
	checkResults(t, r.sweep("{cpus: 0.1, gpus: 1}", 1, func() {}, "hold", 64, 0), 1, grid.Succeeded)

	// A program of somebody else keeps trials away until it is gone.
	other := exec.Command("python3", r.script, "hold", "512", "1000")
	said, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(said).ReadString('\n') // it has its memory
	var gone time.Time
	leave := time.AfterFunc(40*time.Second, func() {
		gone = time.Now()
		other.Process.Kill()
		other.Wait()
	})
	defer leave.Stop()
	pids := map[int]bool{}
	checkResults(t, r.sweep("{cpus: 0.1, gpus: 1}", 1, func() {
		for _, p := range r.use().Processes {
			pids[p.PID] = pids[p.PID] || !gone.IsZero()
		}
	}, "hold", 64, 2), 1, grid.Succeeded)
	if early := slices.Collect(func(yield func(int) bool) {
		for pid, late := range pids {
			if !late && pid != other.Process.Pid && !yield(pid) {
				return
			}
		}
	}); len(early) > 0 || gone.IsZero() {
		t.Errorf("trials used the GPU beside another program: %v", early)
	}

	// How long memory takes to come back after a kill bounds how long a GPU is kept from the next
	// trial.
	big := exec.Command("python3", r.script, "hold", fmt.Sprint(r.gpu.Memory*2/3>>20), "1000")
	if said, err = big.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := big.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(said).ReadString('\n')
	killed := time.Now()
	big.Process.Kill()
	big.Wait()
	for u := r.use(); len(u.Processes) > 0 || u.Memory > before.Memory+(256<<20); u = r.use() {
		if time.Since(killed) > 10*time.Second {
			t.Fatalf("the memory is not back after ten seconds: %+v", u)
		}
	}
	t.Logf("the memory of a killed program is back after %v", time.Since(killed))
}

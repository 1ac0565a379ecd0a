package node_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestStandaloneNodeWaitsForItsGPUs submits immediately after the start, when the driver may not
// have been looked at yet.
func TestStandaloneNodeWaitsForItsGPUs(t *testing.T) {
	fake, err := inventorytest.New("2xA100-40", "test", "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.GPUs = fake
	c := attach(t, cfg).Client()
	s := script(t, `echo "$MLF_GPUS $CUDA_VISIBLE_DEVICES gpu=$1"`, "gpu=0", "n=0:6")
	s.Task.Resources.GPUs = grid.One
	v := submit(t, c, s)
	if got := wait(t, c, v.Sweep); got.Succeeded != 6 {
		t.Fatalf("got %+v, want 6 successes", got)
	}
	var uuids []string
	for _, g := range fake.GPUs() {
		uuids = append(uuids, g.UUID)
	}
	for _, tr := range list(t, c, v.Sweep, api.TrialQuery{}) {
		if len(tr.Devices) != 1 || !slices.Contains(uuids, tr.Devices[0]) {
			t.Errorf("trial %d: devices %v, want one of %v", tr.Index, tr.Devices, uuids)
			continue
		}
		index := slices.Index(uuids, tr.Devices[0])
		if out, want := text(t, c, v.Sweep, api.LogQuery{Index: tr.Index}), []string{"0", "1"}[index]+" "+tr.Devices[0]+
			" gpu=--gpu=0\n"; out != want {
			t.Errorf("trial %d: printed %q, want %q", tr.Index, out, want)
		}
	}
	for want, r := range map[string]grid.Resources{
		"this machine has 2 GPUs, and a trial needs 3 GPUs": {CPUs: 1,
			GPUs: 3 * grid.One},
		`this machine has 0 GPUs whose model contains "H100", and a trial needs 1 GPU`: {CPUs: 1,
			GPUs: 500, GPUModel: "H100"},
		"this machine has 0 instances of MIG profile 1g.5gb, and a trial needs 1 instance": {CPUs: 1,
			GPUProfile: "1g.5gb"},
		"this machine has GPUs with at most 40 GiB of memory, and a trial needs 41 GiB": {CPUs: 1, GPUs: grid.One,
			GPUMemory: 41 << 30},
		"this machine has 4 processors, and a trial needs 5 processors": {CPUs: 5 * grid.One},
	} {
		s.Task.Resources = r
		if _, err := c.Sweeps().Submit(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", r, err, want)
		}
	}
}

// TestMeasuredTrialsShareAGPU runs trials whose use of GPUs is measured. The first ones get whole
// GPUs; then several share one; one that runs out of memory beside others runs again, and the
// others get more.
func TestMeasuredTrialsShareAGPU(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "script")
	fake, err := inventorytest.New("2xA100-40", "test", file)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.GPUs = fake
	c := attach(t, cfg).Client()
	const oom = 7 // the trial that runs out of memory when it shares a GPU
	s := script(t, fmt.Sprintf(`echo "run $CUDA_VISIBLE_DEVICES $$ 9GiB" >> %s
echo "prealloc=$XLA_PYTHON_CLIENT_PREALLOCATE"
if [ "$1" = --n=%d ] && [ $MLF_ATTEMPT = 1 ]; then
	sleep 5
	echo "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of 39.50 GiB" >&2
	exit 1
fi
sleep 11`, file, oom), "n=0:12")
	s.Task.Resources = grid.Resources{CPUs: 250, GPUMemory: grid.GPUMemoryAuto}
	v := submit(t, c, s)
	if got := wait(t, c, v.Sweep); got.Succeeded != 12 {
		t.Fatalf("got %+v, want 12 successes", got)
	}
	trials := list(t, c, v.Sweep, api.TrialQuery{})
	most := 0 // on one GPU at one time
	for i, tr := range trials {
		beside := 0
		for _, o := range trials {
			if slices.Equal(o.Devices, tr.Devices) && !o.Started.After(*tr.Started) && o.Ended.After(*tr.Started) {
				beside++
			}
		}
		if most = max(most, beside); i < 3 && beside > 1 {
			t.Errorf("%d trials ran on a GPU while trial %d was measured", beside, i)
		}
		if want := 1 + btoi(tr.Index == oom); tr.Attempts != want {
			t.Errorf("trial %d: got %d attempts, want %d", tr.Index, tr.Attempts, want)
		}
		if out := text(t, c, v.Sweep, api.LogQuery{Index: tr.Index}); !strings.Contains(out, "prealloc=false") {
			t.Errorf("trial %d: printed %q", tr.Index, out)
		}
	}
	if most < 2 || most > 3 {
		t.Errorf("%d trials shared a GPU at most, want 3, or 2 after the lack of memory", most)
	}
	got, err := c.Sweeps().Get(t.Context(), v.Sweep)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sharing) != 1 || got.Sharing[0].Trials != 2 || got.Sharing[0].Memory != 27<<29 ||
		!strings.HasPrefix(got.Sharing[0].Model, "NVIDIA A100") {
		t.Errorf("got %+v, want two trials on a GPU with 13.5 GiB each", got.Sharing)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

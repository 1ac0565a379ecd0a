package node_test

import (
	"slices"
	"strings"
	"testing"

	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestGPUsOfANodeThatStandsAlone submits at once after the start, when the driver may not have been looked at yet.
func TestGPUsOfANodeThatStandsAlone(t *testing.T) {
	fake, err := inventorytest.New("2xA100-40", "test", "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t)
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
		if out, want := text(t, c, v.Sweep, api.LogQuery{Index: tr.Index}), []string{"0", "1"}[index]+" "+tr.Devices[0]+" gpu=--gpu=0\n"; out != want {
			t.Errorf("trial %d: printed %q, want %q", tr.Index, out, want)
		}
	}
	for want, r := range map[string]grid.Resources{
		"this machine has 2 GPUs, and a trial needs 3 GPUs":                                {CPUs: 1, GPUs: 3 * grid.One},
		`this machine has 0 GPUs whose model contains "H100", and a trial needs 1 GPU`:     {CPUs: 1, GPUs: 500, GPUModel: "H100"},
		"this machine has 0 instances of MIG profile 1g.5gb, and a trial needs 1 instance": {CPUs: 1, GPUProfile: "1g.5gb"},
		"this machine has GPUs with at most 40 GiB of memory, and a trial needs 41 GiB":    {CPUs: 1, GPUs: grid.One, GPUMemory: 41 << 30},
		"this machine has 4 processors, and a trial needs 5 processors":                    {CPUs: 5 * grid.One},
	} {
		s.Task.Resources = r
		if _, err := c.Submit(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", r, err, want)
		}
	}
}

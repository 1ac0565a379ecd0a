package master

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/packing"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// setGPUs gives the cluster so many GPUs of each model, of 80 GiB each.
func (c *testMaster) setGPUs(models map[string]int) {
	c.inLoop(func(s *scheduler) {
		s.m.cfg.Capacity.Slots = func(r grid.Resources) int {
			n := 0
			for model, devices := range models {
				if strings.Contains(model, r.GPUModel) {
					n += devices * min(int(grid.One/r.GPUs), int(80*gib/max(r.GPUMemory, 1)))
				}
			}
			return n
		}
	})
}

// measuredSweep makes a sweep's trials share GPUs by what they are measured to use.
func measuredSweep(s *api.Submit) { s.Task.Resources.GPUMemory = grid.GPUMemoryAuto }

func gpuPart(model string, memory int64, share grid.Milli) grid.Resources {
	return grid.Resources{CPUs: grid.One, GPUs: share, GPUMemory: memory, GPUModel: model}
}

var wholeGPU = grid.Resources{CPUs: grid.One, GPUs: grid.One}

// waitForLeasesIn waits until so many leases of a sweep are in a lane.
func (c *testMaster) waitForLeasesIn(id grid.SweepID, need grid.Resources, want int) {
	c.t.Helper()
	c.waitFor(fmt.Sprintf("%d leases with %+v", want, need), func(s *scheduler) bool {
		f := s.feeds[id]
		return f != nil && f.leasesInLane[f.laneFor(need)] == want
	})
}

// TestMeasuredTrialsShareGPUs checks that the first trials get whole devices, that then several
// share one, and that those that run out of memory get more, and in the end a whole device.
func TestMeasuredTrialsShareGPUs(t *testing.T) {
	dir := t.TempDir()
	c := restartMaster(t, dir, 8)
	models := map[string]int{"A100": 2}
	c.setGPUs(models)
	id := c.submit(1000, measuredSweep)
	for range 3 {
		c.waitForLeasesIn(id, wholeGPU, 2)
		c.workers.finishWithGPUUse(c.workers.takeLeaseOf(id, wholeGPU), grid.ClassNone, "", "A100", 0, 10*gib)
	}
	small := gpuPart("A100", 47*gib/4, 147)
	c.waitForLeasesIn(id, small, queueDepth*12)
	c.waitForLeasesIn(id, wholeGPU, 1) // it was leased before
	c.workers.finishWithGPUUse(c.workers.takeLeaseOf(id, wholeGPU), grid.ClassNone, "", "A100", 0, 10*gib)
	c.waitForLeasesIn(id, wholeGPU, 0)

	why, err := c.Explain(t.Context(), grid.TrialID{Sweep: id, Index: 900})
	if want := "on A100 6 trials on a GPU, 11.8 GiB each"; err != nil || !strings.Contains(why.Text, want) {
		t.Errorf("a trial that waits: got %q, %v, want %q in it", why.Text, err, want)
	}
	first := c.workers.takeLeaseOf(id, small)
	c.workers.finishWithGPUUse(first, grid.ClassCUDAShared, "CUDA out of memory. Tried to allocate 6.00 GiB.",
		"A100", small.GPUMemory, 10*gib)
	more := gpuPart("A100", 16*gib, 200)
	again := c.workers.takeLeaseOf(id, more)
	if again.Lo != first.Lo || again.Attempt != 2 {
		t.Fatalf("got attempt %d of trial %d, want attempt 2 of trial %d", again.Attempt, again.Lo, first.Lo)
	}
	if err := c.store.Queue.Purge(t.Context()); err != nil { // as a node that stands alone does at its start
		t.Fatal(err)
	}
	c.stopMaster()

	c = restartMaster(t, dir, 8) // what was learned is in the record
	c.setGPUs(models)
	again = c.workers.takeLeaseOf(id, more)
	if again.Lo != first.Lo {
		t.Fatalf("got trial %d, want trial %d", again.Lo, first.Lo)
	}
	c.workers.finishWithGPUUse(again, grid.ClassCUDAShared, "", "A100", more.GPUMemory, 15*gib)
	if last := c.workers.takeLeaseOf(id, wholeGPU); last.Lo != first.Lo {
		t.Fatalf("got trial %d, want trial %d", last.Lo, first.Lo)
	} else {
		c.workers.finishWithGPUUse(last, grid.ClassNone, "", "A100", 0, 15*gib)
	}
	if n := c.counts(id); n.Failed != 0 || n.Succeeded != 5 {
		t.Errorf("got %+v, want no failure", n)
	}
}

// TestEachModelIsMeasured checks that other models give whole devices while the trials' need is
// known on one model only.
func TestEachModelIsMeasured(t *testing.T) {
	c := startMaster(t, 8)
	c.setGPUs(map[string]int{"A100": 2, "T4": 1})
	id := c.submit(1000, measuredSweep)
	for range 3 {
		c.waitForLeasesIn(id, wholeGPU, 3)
		c.workers.finishWithGPUUse(c.workers.takeLeaseOf(id, wholeGPU), grid.ClassNone, "", "A100", 0, 10*gib)
	}
	c.waitForLeasesIn(id, gpuPart("A100", 47*gib/4, 147), queueDepth*12)
	for range 2 { // of before
		c.workers.finishWithGPUUse(c.workers.takeLeaseOf(id, wholeGPU), grid.ClassNone, "", "A100", 0, 10*gib)
	}
	for range 3 {
		c.waitForLeasesIn(id, wholeGPU, 1)
		c.workers.finishWithGPUUse(c.workers.takeLeaseOf(id, wholeGPU), grid.ClassNone, "", "T4", 0, 60*gib)
	}
	c.waitForLeasesIn(id, wholeGPU, queueDepth) // one trial needs all of a T4
	c.waitForLeasesIn(id, gpuPart("A100", 47*gib/4, 147), queueDepth*12)
}

// TestMeasuredByValue checks that trials with another value of the axis are measured separately,
// and that each goes into the lane of its own value.
func TestMeasuredByValue(t *testing.T) {
	c := startMaster(t, 8)
	c.setGPUs(map[string]int{"A100": 1})
	id := c.submit(6, func(s *api.Submit) {
		measuredSweep(s)
		points, err := space.New([]space.Axis{
			{Key: "batch", Values: []space.Value{{Text: "1"}, {Text: "2"}, {Text: "4"}}},
			{Key: "seed", Values: numbers(8)},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Space, s.Task.MeasureBy = points, "batch"
	})
	ended := map[int64]bool{}
	for value, peak := range []int64{10 * gib, 20 * gib, 60 * gib} {
		for n := range 2 {
			h := c.workers.takeLeaseOf(id, wholeGPU)
			if got := h.Lo / 8; got != int64(value) || h.Hi != h.Lo+1 {
				t.Fatalf("trial %d of value %d: got trials [%d,%d)", n, value, h.Lo, h.Hi)
			}
			c.workers.finishWithGPUUse(h, grid.ClassNone, "", "A100", 0, peak)
			ended[h.Lo] = true
		}
	}
	for need, value := range map[grid.Resources]int64{gpuPart("A100", 47*gib/4, 147): 0,
		gpuPart("A100", 93*gib/4, 291): 1} {
		for range 6 {
			h := c.workers.takeLeaseOf(id, need)
			if h.Lo/8 != value || ended[h.Lo] {
				t.Fatalf("trial %d is in the lane of value %d, ended before: %v", h.Lo, value, ended[h.Lo])
			}
			c.workers.finishWithGPUUse(h, grid.ClassNone, "", "A100", need.GPUMemory, 5*gib)
			ended[h.Lo] = true
		}
	}
	for range 6 {
		h := c.workers.takeLeaseOf(id, wholeGPU)
		c.workers.finishWithGPUUse(h, grid.ClassNone, "", "A100", 0, 60*gib)
		ended[h.Lo] = true
	}
	c.waitFor("the sweep has ended", func(s *scheduler) bool { return s.feeds[id] == nil })
	if len(ended) != 24 {
		t.Errorf("%d trials ended, want 24", len(ended))
	}
}

func numbers(n int) (all []space.Value) {
	for i := range n {
		all = append(all, space.Value{Text: fmt.Sprint(i)})
	}
	return all
}

// TestSlotsAreAskedOnce checks that nodes are asked once for each size in each pass, however many
// trials are checked to find those that belong in a lane.
func TestSlotsAreAskedOnce(t *testing.T) {
	c := startMaster(t, 8)
	c.setGPUs(map[string]int{"A100": 4, "T4": 4})
	id := c.submit(900, func(s *api.Submit) {
		measuredSweep(s)
		points, err := space.New([]space.Axis{{Key: "batch", Values: numbers(30)}, {Key: "seed", Values: numbers(30)}},
			nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Space, s.Task.MeasureBy = points, "batch"
	})
	c.waitForLeasesIn(id, wholeGPU, 8)
	for range 2 {
		c.workers.finishWithGPUUse(c.workers.takeLeaseOf(id, wholeGPU), grid.ClassNone, "", "A100", 0, 10*gib)
	}
	c.waitForLeasesIn(id, wholeGPU, 8)
	c.inLoop(func(s *scheduler) {
		asked, ask := map[grid.Resources]int{}, s.m.cfg.Capacity.Slots
		s.m.cfg.Capacity.Slots = func(r grid.Resources) int {
			asked[r]++
			return ask(r)
		}
		if err := s.topUpQueue(t.Context()); err != nil {
			t.Error(err)
		}
		s.m.cfg.Capacity.Slots = ask
		for r, n := range asked {
			if n > 1 {
				t.Errorf("%+v: the nodes were asked %d times", r, n)
			}
		}
		if len(asked) == 0 {
			t.Error("nothing was asked for")
		}
	})
}

// TestSizesOfAnyRecord checks that, whatever a record says was measured, there are few sizes, and
// each is one that trials can get.
func TestSizesOfAnyRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		task := grid.Task{Resources: grid.Resources{CPUs: grid.One, GPUMemory: grid.GPUMemoryAuto}}
		size := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 80*gib))
		var all packing.Estimates
		for i := range rapid.IntRange(0, 70).Draw(t, "estimates") {
			all = append(all, packing.Estimate{
				Model: rapid.SampledFrom([]string{"A100", "T4", "", "\x00"}).Draw(t, "model"),
				Value: fmt.Sprint(i), Learned: 3,
				Device: size.Draw(t, "device"), Memory: size.Draw(t, "memory"), Busy: rapid.Int().Draw(t, "busy"),
			})
		}
		m := newGPUSharing(all, &task)
		sizes := map[grid.Resources]bool{}
		for _, need := range m.parts {
			if need.GPUs == 0 {
				continue
			}
			if sizes[need] = true; need.Check() != nil || need.GPUs >= grid.One || need.GPUMemory <= 0 {
				t.Errorf("trials get %+v", need)
			}
		}
		if len(sizes) > maxPartSizes {
			t.Errorf("%d sizes, want at most %d", len(sizes), maxPartSizes)
		}
	})
}

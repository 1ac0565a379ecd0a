package worker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

func gpuLane(gpus grid.Milli) lane {
	r := grid.Resources{CPUs: grid.One, GPUs: gpus}
	return lane{name: grid.LaneOf(0, r, ""), resources: r}
}

func eightGPUs() []allocator.Device {
	all := make([]allocator.Device, 8)
	for i := range all {
		all[i] = allocator.Device{UUID: fmt.Sprint("GPU-", i), Index: i, Memory: 80 << 30, Group: i / 4, NUMA: i / 4}
	}
	return all
}

// simulateStarvation simulates endless lanes that share eight GPUs, among them one that needs all,
// and returns what is wrong with their shares.
func simulateStarvation(t *testing.T, keeps bool, total time.Duration) []string {
	rng := rand.New(rand.NewPCG(7, 7))
	quarter, half, four, eight := gpuLane(250), gpuLane(500), gpuLane(4*grid.One), gpuLane(8*grid.One)
	lengths := map[grid.Lane][2]int{
		quarter.name: {10, 100}, half.name: {30, 60}, four.name: {60, 120}, eight.name: {60, 120},
	}
	n := newSimulatedNode(eightGPUs()...)
	n.keeps = keeps
	n.length = func(l lane) time.Duration {
		b := lengths[l.name]
		return time.Duration(b[0]+rng.IntN(b[1]-b[0]+1)) * time.Second
	}
	lanes := []lane{quarter, half, four, eight}
	n.run(lanes, total)
	sum := time.Duration(0)
	for _, l := range lanes {
		sum += n.had[l.name]
	}
	// A lane waits for those that have waited longer, itself included. Each of them takes the time
	// until it comes first, plus the longest run.
	turn := maxQuantum
	bound := time.Duration(len(lanes)) * (max(overdueTime, overdueQuanta*turn) + 120*time.Second)
	var wrong []string
	for _, l := range lanes {
		longest := max(n.longest[l.name], n.now.Sub(n.last[l.name]))
		share := float64(n.had[l.name]) / float64(sum)
		t.Logf(
			"%-20s %6d trials, %.3f of the time, longest wait %v", l.name, n.begun[l.name], share,
			longest.Round(time.Second),
		)
		if n.begun[l.name] == 0 || longest > bound {
			wrong = append(
				wrong,
				fmt.Sprintf("%s: %d trials, waited %v, want at most %v", l.name, n.begun[l.name], longest, bound),
			)
		}
		if share < 0.20 || share > 0.30 {
			wrong = append(wrong, fmt.Sprintf("%s: had %.2f of the time, want about a quarter", l.name, share))
		}
	}
	used := float64(n.busy) / float64(8*total)
	t.Logf("%.3f of the devices' time used", used)
	if used < 0.85 {
		wrong = append(wrong, fmt.Sprintf("%.2f of the devices' time was used, want 0.85", used))
	}
	return wrong
}

// TestNoLaneStarves simulates 100,000 seconds.
func TestNoLaneStarves(t *testing.T) {
	for _, wrong := range simulateStarvation(t, true, 100_000*time.Second) {
		t.Error(wrong)
	}
}

// TestLanesStarveWithoutKeeping simulates the same lanes without held room. The starvation test
// must notice the difference.
func TestLanesStarveWithoutKeeping(t *testing.T) {
	wrong := simulateStarvation(t, false, 100_000*time.Second)
	if len(wrong) == 0 {
		t.Error("nobody starves although nothing is kept: the other test proves nothing")
	}
	t.Log(wrong)
}

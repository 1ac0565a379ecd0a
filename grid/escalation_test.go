package grid

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEscalated(t *testing.T) {
	const gib = 1 << 30
	task := Task{
		Resources: Resources{CPUs: One, Memory: 4 * gib, GPUMemory: 8 * gib},
		Escalate:  map[Class]float64{ClassMemory: 1.5, ClassCUDAMemory: 2},
	}
	for _, c := range []struct {
		name        string
		failed      map[Class]int
		largest     int64 // largest memory that fits
		memory, gpu int64
	}{
		{"nothing failed", nil, 100 * gib, 4 * gib, 8 * gib},
		{"something else", map[Class]int{ClassExit: 3}, 100 * gib, 4 * gib, 8 * gib},
		{"once", map[Class]int{ClassMemory: 1}, 100 * gib, 6 * gib, 8 * gib},
		{"twice", map[Class]int{ClassMemory: 2}, 100 * gib, 9 * gib, 8 * gib},
		{"as often as it goes", map[Class]int{ClassMemory: 3}, 100 * gib, 27 * gib / 2, 8 * gib},
		{"no more than that", map[Class]int{ClassMemory: 50}, 100 * gib, 27 * gib / 2, 8 * gib},
		{"no more than fits", map[Class]int{ClassMemory: 3}, 9 * gib, 9 * gib, 8 * gib},
		{"nothing more fits", map[Class]int{ClassMemory: 3}, 4 * gib, 4 * gib, 8 * gib},
		{"both", map[Class]int{ClassMemory: 1, ClassCUDAMemory: 1}, 100 * gib, 6 * gib, 16 * gib},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := task.Escalated(c.failed, func(r Resources) bool { return r.Memory <= c.largest })
			if got.Memory != c.memory || got.GPUMemory != c.gpu {
				t.Errorf("got %d and %d bytes, want %d and %d", got.Memory, got.GPUMemory, c.memory, c.gpu)
			}
		})
	}
}

// TestEscalatedToAWholeDevice checks that a trial gets a whole device after it has run out of
// memory twice on shared ones. If memory is measured, the second attempt uses the new estimate.
func TestEscalatedToAWholeDevice(t *testing.T) {
	all := func(Resources) bool { return true }
	for _, c := range []struct {
		name        string
		asked, want Resources
		failures    int
	}{
		{"a part, once", Resources{CPUs: One, GPUs: 250}, Resources{CPUs: One, GPUs: 250}, 1},
		{"a part, twice", Resources{CPUs: One, GPUs: 250}, Resources{CPUs: One, GPUs: One}, 2},
		{"memory, twice", Resources{CPUs: One, GPUMemory: 8}, Resources{CPUs: One, GPUs: One, GPUMemory: 8}, 2},
		{"measured, once", Resources{CPUs: One, GPUMemory: GPUMemoryAuto},
			Resources{CPUs: One, GPUMemory: GPUMemoryAuto}, 1},
		{"measured, twice", Resources{CPUs: One, GPUMemory: GPUMemoryAuto}, Resources{CPUs: One, GPUs: One}, 2},
		{"whole already", Resources{CPUs: One, GPUs: 2 * One}, Resources{CPUs: One, GPUs: 2 * One}, 2},
		{"a MIG instance", Resources{CPUs: One, GPUProfile: "1g.5gb"}, Resources{CPUs: One, GPUProfile: "1g.5gb"}, 2},
		{"no GPU", Resources{CPUs: One}, Resources{CPUs: One}, 2},
	} {
		task := Task{Resources: c.asked}
		if got := task.Escalated(map[Class]int{ClassCUDAShared: c.failures}, all); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestEscalatedOfAnyRecord checks that, whatever a record holds, a retry gets at least what its
// task asks for, and that the result is valid.
func TestEscalatedOfAnyRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		task := Task{
			Resources: Resources{CPUs: One, Memory: max(rapid.Int64().Draw(t, "memory"), 0),
				GPUMemory: max(rapid.Int64().Draw(t, "gpu"), 0)},
			Escalate: map[Class]float64{ClassMemory: rapid.Float64().Draw(t, "factor"),
				ClassCUDAMemory: rapid.Float64().Draw(t, "factor")},
		}
		failed := map[Class]int{ClassMemory: rapid.Int().Draw(t, "failures"),
			ClassCUDAMemory: rapid.Int().Draw(t, "failures")}
		got := task.Escalated(failed, func(Resources) bool { return true })
		if got.Memory < task.Resources.Memory || got.GPUMemory < task.Resources.GPUMemory || got.Check() != nil {
			t.Errorf("%+v after %v of %+v: %v", got, failed, task, got.Check())
		}
	})
}

func TestCheckEscalation(t *testing.T) {
	for _, c := range []struct {
		name     string
		escalate map[Class]float64
		retries  Retries
		memory   int64
		want     string // part of the message, or ""
	}{
		{"as it should be", map[Class]float64{ClassMemory: 1.5}, Retries{ClassMemory: 2}, 1 << 30, ""},
		{"no memory is given", map[Class]float64{ClassMemory: 1.5}, Retries{ClassMemory: 2}, 0,
			"does not say how much it needs"},
		{"no retries", map[Class]float64{ClassMemory: 1.5}, Retries{}, 1 << 30, "there are none"},
		{"another class", map[Class]float64{ClassExit: 1.5}, Retries{ClassExit: 2}, 1 << 30, "can't get more memory"},
		{"less memory", map[Class]float64{ClassMemory: 0.5}, Retries{ClassMemory: 2}, 1 << 30, "not a number above 1"},
		{"far too much", map[Class]float64{ClassMemory: 1e30}, Retries{ClassMemory: 2}, 1 << 30,
			"not a number above 1"},
		{"of a GPU, which is not asked for", map[Class]float64{ClassCUDAMemory: 2}, Retries{ClassCUDAMemory: 2},
			1 << 30, "does not say how much it needs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := Task{Resources: Resources{CPUs: One, Memory: c.memory}, Retries: c.retries, Escalate: c.escalate}
			err := task.CheckEscalation()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

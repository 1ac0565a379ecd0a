package allocator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"mlfnode/grid"
)

// gpus makes n equal GPUs of 80 GiB, in NVLink islands of the given size.
func gpus(n, island int) []Device {
	all := make([]Device, n)
	for i := range all {
		all[i] = Device{
			UUID: fmt.Sprintf("GPU-%02d", i), Index: i, Name: "NVIDIA A100-SXM4-80GB", Memory: 80 << 30,
			Group: i / island, NUMA: i / 4,
		}
	}
	return all
}

func node(devices []Device) *Allocator { return New(Options{}, 1000*grid.One, 1<<50, devices) }

// get makes a reservation and returns the indexes of the devices, or nil if it was refused.
func get(a *Allocator, r grid.Resources) (*Allocation, []int) {
	r.CPUs = 1
	al, _ := a.Reserve("x", r)
	if al == nil {
		return nil, nil
	}
	var all []int
	for _, s := range al.Shares {
		all = append(all, s.Index)
	}
	return al, all
}

// TestWholeDevicesLieTogether finds the smallest island that can hold a request.
func TestWholeDevicesLieTogether(t *testing.T) {
	one := func(n int) grid.Resources { return grid.Resources{GPUs: grid.Milli(n) * grid.One} }
	for _, c := range []struct {
		name   string
		island int
		taken  []int // devices that are already in use
		ask    int
		want   []int
	}{
		{"an island that it fills", 2, []int{0}, 2, []int{2, 3}},
		{"the smallest that holds it", 4, []int{0}, 3, []int{1, 2, 3}},
		{"one of a broken island", 4, []int{0}, 1, []int{1}},
		{"across islands, the largest first", 4, []int{0, 4, 5}, 4, []int{1, 2, 3, 6}},
		{"all", 4, nil, 8, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"more than are free", 4, []int{7}, 8, nil},
		{"one island, by memory node", 8, []int{0}, 4, []int{4, 5, 6, 7}},
	} {
		a := node(gpus(8, c.island))
		for _, i := range c.taken {
			a.Restore(&Allocation{Shares: []Share{{UUID: fmt.Sprintf("GPU-%02d", i), Milli: grid.One, Memory: 1}}})
		}
		if _, got := get(a, one(c.ask)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestSharesFillDevices checks that shares are placed where they leave the least.
func TestSharesFillDevices(t *testing.T) {
	a := node(gpus(3, 1))
	for _, c := range []struct {
		r    grid.Resources
		want []int
	}{
		{grid.Resources{GPUs: 500}, []int{0}},
		{grid.Resources{GPUs: 700}, []int{1}},
		{grid.Resources{GPUs: 300}, []int{1}},                      // fills it
		{grid.Resources{GPUMemory: 20 << 30}, []int{0}},            // a quarter
		{grid.Resources{GPUs: 100, GPUMemory: 30 << 30}, []int{2}}, // its memory does not fit next to the others
		{grid.Resources{GPUs: grid.One}, nil},
		{grid.Resources{GPUs: 250}, []int{0}},
		{grid.Resources{GPUs: 900}, nil},
		{grid.Resources{GPUMemory: 50 << 30}, []int{2}},
		{grid.Resources{GPUMemory: 81 << 30}, nil},
	} {
		if _, got := get(a, c.r); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.r, got, c.want)
		}
	}
}

// TestEightSharesFillADevice checks that sums of fractions are exact, and that a ninth share does
// not fit.
func TestEightSharesFillADevice(t *testing.T) {
	for _, f := range []grid.Milli{125, 200, 250, 333, 500} {
		a, n := node(gpus(1, 1)), 0
		for _, got := get(a, grid.Resources{GPUs: f}); got != nil; _, got = get(a, grid.Resources{GPUs: f}) {
			n++
		}
		if n != int(grid.One/f) {
			t.Errorf("%s: %d on one GPU, want %d", f, n, grid.One/f)
		}
	}
}

// TestInstances assigns MIG instances to trials that request their profile, or so much memory that
// an instance fits better than a GPU.
func TestInstances(t *testing.T) {
	devices := gpus(2, 1)
	for i := range 3 {
		devices = append(
			devices,
			Device{
				UUID: fmt.Sprintf("MIG-%d", i), Parent: "GPU-01", Index: 1, Name: devices[0].Name, Profile: "1g.10gb",
				Memory: 10 << 30,
			},
		)
	}
	a := node(devices)
	al, _ := get(a, grid.Resources{GPUMemory: 10 << 30})
	if al == nil || al.Shares[0].UUID != "MIG-0" || al.Shares[0].Milli != grid.One {
		t.Errorf("10 GiB: got %+v, want an instance as a whole", al)
	}
	if al, _ := get(a, grid.Resources{GPUProfile: "1G.10GB"}); al == nil || al.Shares[0].UUID != "MIG-1" {
		t.Errorf("by profile: got %+v", al)
	}
	if al, _ := get(a, grid.Resources{GPUs: grid.One}); al == nil || al.Shares[0].UUID != "GPU-00" {
		t.Errorf("a GPU: got %+v, want the one that is not divided", al)
	}
	if al, _ := get(a, grid.Resources{GPUs: grid.One}); al != nil {
		t.Errorf("a second GPU: got %+v, want none", al)
	}
	if never := a.NeverFits(
		grid.Resources{GPUProfile: "2g.20gb"},
	); never.String() != "has 0 instances of MIG profile 2g.20gb, and a trial needs 1 instance" {
		t.Errorf("got %q", never)
	}
}

// TestReasons makes one request for each reason, and checks its numbers.
func TestReasons(t *testing.T) {
	for want, c := range map[string]struct {
		prepare func(*Allocator)
		r       grid.Resources
	}{
		"has 4 GPUs, and a trial needs 5 GPUs":                             {nil, grid.Resources{GPUs: 5 * grid.One}},
		"has 8 processors, and a trial needs 9 processors":                 {nil, grid.Resources{CPUs: 9 * grid.One}},
		"has 32 GiB of memory, and a trial needs 64 GiB of memory":         {nil, grid.Resources{Memory: 64 << 30}},
		"has GPUs with at most 80 GiB of memory, and a trial needs 90 GiB": {nil, grid.Resources{GPUMemory: 90 << 30}},
		`has 0 GPUs whose model contains "H100", and a trial needs 1 GPU`: {
			nil, grid.Resources{GPUs: 100, GPUModel: "H100"},
		},
		"1 GPU free, and a trial needs 2 GPUs": {
			func(a *Allocator) { get(a, grid.Resources{GPUs: 3 * grid.One}) }, grid.Resources{GPUs: 2 * grid.One},
		},
		"no GPU has enough left: at most 0.4 GPUs on one, and a trial needs 0.5 GPUs": {func(a *Allocator) {
			for range 4 {
				get(a, grid.Resources{GPUs: 600})
			}
		}, grid.Resources{GPUs: 500}},
		"7 processors free, and a trial needs 8 processors": {
			func(a *Allocator) { a.Reserve("y", grid.Resources{CPUs: grid.One}) }, grid.Resources{CPUs: 8 * grid.One},
		},
		"what it needs is kept for trials that come first": {func(a *Allocator) {
			a.BeginPass()
			a.HoldFor(WaitingLane{"y", grid.Resources{CPUs: 1, GPUs: 4 * grid.One}})
		}, grid.Resources{GPUs: 100}},
		"GPU 2 is used by a program that is not a trial: python (pid 77, user alice)": {func(a *Allocator) {
			a.SetAvailability("GPU-02", Availability{State: Foreign, Why: "python (pid 77, user alice)"})
		}, grid.Resources{GPUs: 4 * grid.One}},
		"GPU 1 is out of service: Xid 79": {
			func(a *Allocator) { a.SetAvailability("GPU-01", Availability{State: Sick, Why: "Xid 79"}) },
			grid.Resources{GPUs: 4 * grid.One},
		},
		"GPU 0 has disappeared: its driver does not show it": {func(a *Allocator) {
			a.SetAvailability("GPU-00", Availability{State: Gone, Why: "its driver does not show it"})
		}, grid.Resources{GPUs: 4 * grid.One}},
		"GPU 3 is not free yet after its last trial: 3 GiB in use": {func(a *Allocator) {
			a.SetAvailability("GPU-03", Availability{State: Dirty, Why: "3 GiB in use"})
		}, grid.Resources{GPUs: 4 * grid.One}},
		"GPU 0 is in exclusive mode and can't be shared": {func(a *Allocator) {
			all := gpus(4, 4)
			for i := range all {
				all[i].Exclusive = true
			}
			a.SetDevices(all)
		}, grid.Resources{GPUs: 500}},
	} {
		a := New(Options{}, 8*grid.One, 32<<30, gpus(4, 4))
		if c.prepare != nil {
			c.prepare(a)
		}
		r := c.r
		r.CPUs = max(r.CPUs, 1)
		if al, got := a.Reserve("x", r); al != nil || got.String() != want {
			t.Errorf("%+v: got %+v, %q; want %q", r, al, got, want)
		}
	}
}

// TestPacking compares the number of devices that streams of shares need with the best result for
// each, found by trying orders and rules.
func TestPacking(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	kinds := map[string]func() grid.Resources{
		"common fractions": func() grid.Resources {
			return grid.Resources{GPUs: pick[grid.Milli](rng, 500, 250, 200, 125, 100)}
		},
		"any fraction": func() grid.Resources { return grid.Resources{GPUs: grid.Milli(50 + rng.IntN(900))} },
		"memory":       func() grid.Resources { return grid.Resources{GPUMemory: int64(1+rng.IntN(40)) << 30} },
		"both": func() grid.Resources {
			return grid.Resources{GPUs: grid.Milli(50 + rng.IntN(900)), GPUMemory: int64(1+rng.IntN(40)) << 30}
		},
	}
	for name, kind := range kinds {
		for _, n := range []int{12, 40} {
			ours, best := 0, 0
			for range 50 {
				var all [][2]int64 // thousandths and bytes
				a := New(Options{Share: 1000}, 1000*grid.One, 0, gpus(n, 1))
				used := map[string]bool{}
				for range n {
					al, _ := get(a, kind())
					used[al.Shares[0].UUID] = true
					all = append(all, [2]int64{int64(al.Shares[0].Milli), al.Shares[0].Memory})
				}
				ours, best = ours+len(used), best+bestFound(rng, all)
			}
			ratio := float64(ours) / float64(best)
			t.Logf("%s, %d requests: %.3f of the best found", name, n, ratio)
			if ratio > 1.10 {
				t.Errorf("%s, %d requests: %.3f times the devices of the best found, want at most 1.10", name, n, ratio)
			}
		}
	}
}

// bestFound packs sizes by several rules in several orders, and returns the smallest number of
// devices of 1000 thousandths and 80 GiB.
func bestFound(rng *rand.Rand, all [][2]int64) int {
	best := len(all)
	for try := range 40 {
		order := slices.Clone(all)
		if try == 0 {
			slices.SortFunc(
				order,
				func(x, y [2]int64) int { return int(max(y[0], y[1]*1000/(80<<30)) - max(x[0], x[1]*1000/(80<<30))) },
			)
		} else {
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		for rule := range 3 {
			var bins [][2]int64
			for _, s := range order {
				at, least := -1, int64(0)
				for i, b := range bins {
					if b[0]+s[0] > 1000 || b[1]+s[1] > 80<<30 {
						continue
					}
					left := []int64{int64(i), 2000 - b[0] - b[1]*1000/(80<<30), 1000 - b[0]}[rule]
					if at < 0 || left < least {
						at, least = i, left
					}
				}
				if at < 0 {
					bins = append(bins, s)
					continue
				}
				bins[at] = [2]int64{bins[at][0] + s[0], bins[at][1] + s[1]}
			}
			best = min(best, len(bins))
		}
	}
	return best
}

// TestKeptDevicesStay checks that a lane that waits for two of four devices keeps the same two
// while others come and go, and that the lanes after it get the rest.
func TestKeptDevicesStay(t *testing.T) {
	a := node(gpus(4, 4))
	big := WaitingLane{"big", grid.Resources{CPUs: 1, GPUs: 2 * grid.One}}
	var running []*Allocation
	for range 8 {
		al, _ := get(a, grid.Resources{GPUs: 500})
		running = append(running, al)
	}
	a.Release(running[7], true) // half of GPU 3 is free
	a.Release(running[0], true) // half of GPU 0
	kept := func() (all []int) {
		a.BeginPass()
		if al, _ := a.Reserve("big", big.Resources); al != nil {
			t.Fatalf("got %+v, want it to wait", al)
		}
		a.HoldFor(big)
		for _, d := range a.Usage().Devices {
			if d.HeldFor == "big" {
				all = append(all, d.Index)
			}
		}
		return all
	}
	if got := kept(); !slices.Equal(got, []int{0, 3}) {
		t.Fatalf("kept: got %v, want those with the most free", got)
	}
	if al, refusal := a.Reserve("x", grid.Resources{CPUs: 1, GPUs: 500}); al != nil ||
		refusal.Code != grid.RefusedBehind {
		t.Errorf("a share of what is kept: got %+v, %+v", al, refusal)
	}
	a.Release(running[3], true)
	a.Release(running[2], true) // the whole of GPU 1 is free
	if got := kept(); !slices.Equal(got, []int{0, 3}) {
		t.Errorf("kept: got %v, want the same as before", got)
	}
	if _, got := get(a, grid.Resources{GPUs: 500}); !slices.Equal(got, []int{1}) {
		t.Errorf("beside what is kept: got %v, want GPU 1", got)
	}
	a.SetAvailability("GPU-03", Availability{State: Dirty})
	if got := kept(); !slices.Equal(got, []int{0, 3}) {
		t.Errorf("kept: got %v, want a device that is about to be free", got)
	}
	a.SetAvailability("GPU-03", Availability{State: Sick})
	if got := kept(); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("kept: got %v, want another in place of the one out of service", got)
	}
	a.BeginPass()
	if _, got := get(a, grid.Resources{GPUs: 500}); got == nil {
		t.Error("nothing is kept when a pass begins, and a share was refused")
	}
}

// TestReleaseOfWatchedDevices checks that a device is not assigned again before the watch has seen
// that it is free.
func TestReleaseOfWatchedDevices(t *testing.T) {
	a := New(Options{Watched: true}, grid.One, 0, gpus(1, 1))
	al, _ := get(a, grid.Resources{GPUs: grid.One})
	a.Release(al, true)
	if al, refusal := a.Reserve("x", grid.Resources{CPUs: 1, GPUs: 100}); al != nil ||
		refusal.Code != grid.RefusedDirty {
		t.Errorf("got %+v, %+v; want dirty", al, refusal)
	}
	if got := a.Slots(grid.Resources{CPUs: 1, GPUs: 100}); got != 8 {
		t.Errorf("slots: got %d, want those of a device that is about to be free", got)
	}
	a.SetAvailability("GPU-00", Availability{State: Ready})
	if _, got := get(a, grid.Resources{GPUs: grid.One}); got == nil {
		t.Error("a device that was seen free is refused")
	}
}

func BenchmarkReserveRelease(b *testing.B) {
	for name, r := range map[string]grid.Resources{
		"processor": {CPUs: grid.One}, "share": {CPUs: grid.One, GPUs: 250},
		"two": {CPUs: grid.One, GPUs: 2 * grid.One},
	} {
		b.Run(name, func(b *testing.B) {
			a := node(gpus(16, 8))
			for range 5 {
				get(a, grid.Resources{GPUs: 600})
			}
			b.ReportAllocs()
			for b.Loop() {
				al, _ := a.Reserve("x", r)
				a.Release(al, true)
			}
		})
	}
}

// TestExchangeAvoidsADevice assigns a trial another device if there is one, and leaves the books
// unchanged if there is none.
func TestExchangeAvoidsADevice(t *testing.T) {
	for name, r := range map[string]grid.Resources{
		"a device": {GPUs: grid.One}, "a share": {GPUs: grid.One / 4}, "two devices": {GPUs: 2 * grid.One},
	} {
		a := node(gpus(3, 3))
		al, _ := a.Reserve("x", r)
		bad := al.Shares[0].UUID
		other, _ := a.ReplaceDevice(al, r, bad)
		if other == al || slices.Contains(other.UUIDs(), bad) {
			t.Errorf("%s: got %v without %s", name, other.UUIDs(), bad)
		}
		if a.Release(al, true) {
			t.Errorf("%s: the exchanged allocation is still out", name)
		}
		if same, _ := a.ReplaceDevice(other, r, bad); same != other {
			t.Errorf("%s: exchanged though it does not have the device", name)
		}
		rest := []*Allocation{other}
		for {
			more, _ := a.Reserve("x", grid.Resources{GPUs: grid.One})
			if more == nil {
				break
			}
			rest = append(rest, more)
		}
		if kept, _ := a.ReplaceDevice(other, r, other.Shares[0].UUID); kept != other {
			t.Errorf("%s: got %v although nothing else is free", name, kept.UUIDs())
		}
		for _, al := range rest {
			if !a.Release(al, true) {
				t.Errorf("%s: an allocation was not out", name)
			}
		}
		if again, _ := a.Reserve("x", grid.Resources{GPUs: 3 * grid.One}); again == nil {
			t.Errorf("%s: the node is not free in the end", name)
		}
	}
}

// TestSlots lets trials come and go: no two concurrent trials have the same slot number, numbers
// stay below the maximum number of trials, and trials of an earlier agent keep their own numbers.
func TestSlots(t *testing.T) {
	a := New(Options{}, 4*grid.One, 0, nil)
	kept := &Allocation{CPUs: grid.One, Slot: 2}
	a.Restore(kept)
	hostile := &Allocation{Slot: 1 << 40}
	a.Restore(hostile)
	a.Release(hostile, true)
	var live []*Allocation
	for i := range 100 {
		for {
			al, _ := a.Reserve("c", grid.Resources{CPUs: grid.One})
			if al == nil {
				break
			}
			live = append(live, al)
		}
		seen := map[int]bool{kept.Slot: true}
		for _, al := range live {
			if seen[al.Slot] || al.Slot > 3 {
				t.Fatalf("slot %d is given twice, or is more than four trials need", al.Slot)
			}
			seen[al.Slot] = true
		}
		n := i % len(live)
		a.Release(live[n], true)
		live = append(live[:n], live[n+1:]...)
	}
}

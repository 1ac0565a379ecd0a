package allocator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid"
)

// model keeps the same books as an Allocator in the plainest way: as a list of reservations, which
// it adds up again for each question.
type model struct {
	cpus    grid.Milli
	memory  int64
	share   int
	devices []Device
	given   []*Allocation
}

// used adds up what is reserved of a device.
func (m *model) used(uuid string) (milli grid.Milli, memory int64, n int) {
	for _, al := range m.given {
		for _, s := range al.Shares {
			if s.UUID == uuid {
				milli, memory, n = milli+s.Milli, memory+s.Memory, n+1
			}
		}
	}
	return milli, memory, n
}

// divided reports whether a device is a GPU with instances, or one that is in use in another
// division.
func (m *model) divided(d *Device) bool {
	for _, o := range m.devices {
		if o.Parent == d.UUID {
			return true
		}
	}
	for _, al := range m.given {
		for _, s := range al.Shares {
			if s.Parent == d.UUID || d.Parent != "" && s.UUID == d.Parent {
				return true
			}
		}
	}
	return false
}

// usableDevices lists the devices on which a request could be satisfied now.
func (m *model) usableDevices(r *grid.Resources) []string {
	var all []string
	for i := range m.devices {
		d := &m.devices[i]
		if d.State != Ready || m.divided(d) ||
			!strings.Contains(strings.ToLower(d.Name), strings.ToLower(r.GPUModel)) || d.Memory < r.GPUMemory {
			continue
		}
		milli, memory, n := m.used(d.UUID)
		instance := d.Parent != ""
		switch {
		case r.GPUProfile != "":
			if d.Profile == r.GPUProfile && n == 0 {
				all = append(all, d.UUID)
			}
		case r.GPUs >= 1000:
			if !instance && n == 0 {
				all = append(all, d.UUID)
			}
		case instance:
			if r.GPUs == 0 && n == 0 {
				all = append(all, d.UUID)
			}
		default:
			w, b := r.GPUs, r.GPUMemory
			if w == 0 {
				w = grid.Milli((b*1000 + d.Memory - 1) / d.Memory)
			} else if b == 0 {
				b = d.Memory * int64(w) / 1000
			}
			whole := w == 1000
			if milli+w <= 1000 && memory+b <= d.Memory && (whole && n == 0 || !whole && n < m.share && !d.Exclusive) {
				all = append(all, d.UUID)
			}
		}
	}
	return all
}

// hasRoom reports whether there is room for the processors and the memory.
func (m *model) hasRoom(r *grid.Resources) bool {
	cpus, memory := r.CPUs, r.Memory
	for _, al := range m.given {
		cpus, memory = cpus+al.CPUs, memory+al.Memory
	}
	return cpus <= m.cpus && memory <= m.memory
}

// workload runs random steps against an Allocator and its model.
type workload struct {
	t   *testing.T
	rng *rand.Rand
	a   *Allocator
	m   *model
	log []string
}

func (w *workload) failf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func pick[T any](rng *rand.Rand, all ...T) T { return all[rng.IntN(len(all))] }

// randomDevices makes a node: GPUs, some of them divided into instances.
func randomDevices(rng *rand.Rand) []Device {
	var all []Device
	model := pick(rng, "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA T4")
	for i := range rng.IntN(9) {
		if rng.IntN(4) == 0 {
			model = pick(rng, "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA T4")
		}
		d := Device{
			UUID: fmt.Sprintf("GPU-%d", i), Index: i, Name: model, Memory: pick[int64](rng, 16, 40, 80) << 30,
			Group: rng.IntN(3) - 1, NUMA: rng.IntN(3) - 1,
			Exclusive: rng.IntN(8) == 0,
		}
		all = append(all, d)
		if rng.IntN(5) == 0 {
			for k := range 1 + rng.IntN(7) {
				part := d
				part.UUID, part.Parent, part.Profile, part.Memory = fmt.Sprintf("MIG-%d.%d", i, k), d.UUID, pick(
					rng, "1g.10gb", "2g.20gb",
				), pick[int64](rng, 10, 20)<<30
				all = append(all, part)
			}
		}
	}
	return all
}

func randomRequest(rng *rand.Rand) grid.Resources {
	r := grid.Resources{
		CPUs: pick[grid.Milli](rng, 1, 100, 500, 1000, 4000), Memory: pick[int64](rng, 0, 0, 1<<30, 8<<30),
	}
	switch rng.IntN(7) {
	case 0:
	case 1:
		r.GPUs = grid.Milli(1+rng.IntN(4)) * grid.One
	case 2:
		r.GPUs = pick[grid.Milli](rng, 100, 125, 200, 250, 333, 500, grid.Milli(1+rng.IntN(999)))
	case 3:
		r.GPUMemory = int64(1+rng.IntN(50<<20)) << 10
	case 4:
		r.GPUs, r.GPUMemory = grid.Milli(1+rng.IntN(999)), int64(rng.IntN(40))<<30
	case 5:
		r.GPUProfile = pick(rng, "1g.10gb", "2g.20gb", "7g.80gb")
	case 6:
		r.GPUs, r.GPUMemory, r.GPUModel = pick[grid.Milli](rng, 1000, 2000, 500), pick[int64](rng, 0, 40<<30), pick(
			rng, "a100", "T4", "H100",
		)
	}
	return r
}

// reserve makes a reservation and compares the answer with the model's.
func (w *workload) reserve(lane grid.Lane, r grid.Resources) {
	w.t.Helper()
	could, room := w.m.usableDevices(&r), w.m.hasRoom(&r)
	n := 0
	if r.NeedsGPU() {
		n = max(r.WholeGPUs(), 1)
	}
	al, refusal := w.a.Reserve(lane, r)
	w.log = append(w.log, fmt.Sprintf("reserve %s %+v: %+v %v", lane, r, al, refusal))
	if al == nil {
		if room && len(could) >= n {
			w.failf("refused (%s) though %d devices could be had: %v", refusal, len(could), could)
		}
		if refusal.Code == "" || refusal.String() == "" {
			w.failf("a refusal without a reason: %+v", refusal)
		}
		if empty := (&model{cpus: w.m.cpus, memory: w.m.memory, share: w.m.share,
			devices: revived(w.m.devices)}); refusal.Never() == (empty.hasRoom(&r) &&
			len(empty.usableDevices(&r)) >= n) {
			w.failf("%+v: never is wrong", refusal)
		}
		return
	}
	if !room || len(al.Shares) != n {
		w.failf("got %d devices of %d; room is %v", len(al.Shares), n, room)
	}
	for i, s := range al.Shares {
		if !slices.Contains(could, s.UUID) {
			w.failf("%s was given, and could not be had", s.UUID)
		}
		if i > 0 && al.Shares[i-1].UUID == s.UUID {
			w.failf("%s was given twice", s.UUID)
		}
	}
	w.m.given = append(w.m.given, al)
}

// revived returns the devices in the state in which nothing is wrong with them.
func revived(devices []Device) []Device {
	all := slices.Clone(devices)
	for i := range all {
		all[i].State = Ready
	}
	return all
}

// compare compares the books of the Allocator with those of the model.
func (w *workload) compare() {
	w.t.Helper()
	b := w.a.Usage()
	cpus, memory := w.m.cpus, w.m.memory
	left := map[string]bool{}
	for _, al := range w.m.given {
		cpus, memory = cpus-al.CPUs, memory-al.Memory
		for _, s := range al.Shares {
			left[s.UUID] = true
		}
	}
	if b.FreeCPUs != cpus || b.FreeMemory != memory {
		w.failf("free: got %s and %d, want %s and %d", b.FreeCPUs, b.FreeMemory, cpus, memory)
	}
	for _, d := range b.Devices {
		milli, memory, n := w.m.used(d.UUID)
		if d.Free != grid.One-milli || d.FreeMemory != d.Memory-memory || d.Shares != n {
			w.failf(
				"%s: got %s and %d free of %d trials, want %s and %d of %d", d.UUID, d.Free, d.FreeMemory, d.Shares,
				grid.One-milli, d.Memory-memory, n,
			)
		}
		i := slices.IndexFunc(w.m.devices, func(o Device) bool { return o.UUID == d.UUID })
		if d.Absent != (i < 0) || i >= 0 && d.State != w.m.devices[i].State {
			w.failf("%s: got absent %v, state %q", d.UUID, d.Absent, d.State)
		}
		delete(left, d.UUID)
	}
	if len(left) > 0 {
		w.failf("in use and not in the books: %v", left)
	}
}

// step does something random.
func (w *workload) step() {
	w.t.Helper()
	lane := grid.Lane(pick(w.rng, "a", "b", "c"))
	switch op := w.rng.IntN(20); {
	case op < 9:
		w.reserve(lane, randomRequest(w.rng))
	case op < 15 && len(w.m.given) > 0:
		i := w.rng.IntN(len(w.m.given))
		al := w.m.given[i]
		w.m.given = slices.Delete(w.m.given, i, i+1)
		w.log = append(w.log, fmt.Sprintf("release %+v", al))
		if !w.a.Release(al, true) {
			w.failf("what was given could not be released")
		}
		if w.a.Release(al, true) {
			w.failf("released twice")
		}
	case op < 17 && len(w.m.devices) > 0:
		d := &w.m.devices[w.rng.IntN(len(w.m.devices))]
		d.State = pick(w.rng, Ready, Ready, Ready, Dirty, Foreign, Sick, Gone)
		w.log = append(w.log, fmt.Sprintf("mark %s %q", d.UUID, d.State))
		w.a.SetAvailability(d.UUID, Availability{State: d.State, Why: "why"})
	case op == 17: // a device appears, disappears or shrinks
		fresh := randomDevices(w.rng)
		for i := range fresh {
			if k := slices.IndexFunc(w.m.devices, func(o Device) bool { return o.UUID == fresh[i].UUID }); k >= 0 {
				fresh[i].State = w.m.devices[k].State
			}
		}
		w.m.devices, w.m.cpus, w.m.memory = fresh, pick[grid.Milli](w.rng, 4000, 16000),
			pick[int64](w.rng, 16<<30, 64<<30)
		w.log = append(w.log, fmt.Sprintf("update %d devices, %s processors", len(fresh), w.m.cpus))
		w.a.SetSize(w.m.cpus, w.m.memory)
		w.a.SetDevices(fresh)
	case op == 18: // another agent takes over what some trials hold
		w.restart()
	}
	w.compare()
}

// restart makes new books from a random part of the reservations, and runs the same future on both.
func (w *workload) restart() {
	w.t.Helper()
	keep := w.rng.IntN(len(w.m.given) + 1)
	for _, al := range w.m.given[keep:] {
		w.a.Release(al, true)
	}
	w.m.given = w.m.given[:keep]
	b := New(Options{Share: w.m.share}, w.m.cpus, w.m.memory, w.m.devices)
	var restored []*Allocation
	for _, i := range w.rng.Perm(keep) {
		al := *w.m.given[i]
		restored = append(restored, &al)
		b.Restore(&al)
	}
	w.log = append(w.log, fmt.Sprintf("restart with %d", keep))
	var got []*Allocation
	for range 5 {
		lane, r := grid.Lane(pick(w.rng, "a", "b")), randomRequest(w.rng)
		x, rx := w.a.Reserve(lane, r)
		y, ry := b.Reserve(lane, r)
		if (x == nil) != (y == nil) || rx.Code != ry.Code || x != nil && !slices.Equal(x.Shares, y.Shares) {
			w.failf("%+v: got %+v %v before the restart and %+v %v after it", r, x, rx, y, ry)
		}
		if x != nil {
			got = append(got, x)
		}
	}
	for _, al := range got {
		w.a.Release(al, true)
	}
	if w.rng.IntN(2) == 0 {
		for _, al := range restored {
			b.Release(al, true)
		}
		if book := b.Usage(); book.FreeCPUs-w.m.cpus > 0 {
			w.failf("more is free than there is: %+v", book)
		}
	}
}

// TestBooksEqualTheModel runs 10,000 random workloads.
func TestBooksEqualTheModel(t *testing.T) {
	for seed := range uint64(10_000) {
		rng := rand.New(rand.NewPCG(seed, 10))
		devices := randomDevices(rng)
		for i := range devices {
			devices[i].State = pick(rng, Ready, Ready, Ready, Ready, Sick)
		}
		m := &model{cpus: 16000, memory: 64 << 30, share: pick(rng, 2, 4, 8), devices: devices}
		w := &workload{t: t, rng: rng, m: m, a: New(Options{Share: m.share}, m.cpus, m.memory, devices)}
		w.log = append(w.log, fmt.Sprintf("seed %d: %+v", seed, devices))
		w.compare()
		for range 10 + rng.IntN(30) {
			w.step()
		}
		for _, al := range m.given {
			w.a.Release(al, true)
		}
		m.given = nil
		w.compare()
		if len(w.a.lanes) > 0 || len(w.a.allocations) > 0 {
			w.failf(
				"something is left of what was given back: %v, %v", slices.Collect(maps.Keys(w.a.lanes)),
				len(w.a.allocations),
			)
		}
	}
}

// TestSlotsAreWhatFits fills an empty node with one kind of request: as many fit as Slots says.
func TestSlotsAreWhatFits(t *testing.T) {
	for seed := range uint64(2_000) {
		rng := rand.New(rand.NewPCG(seed, 11))
		devices, r := randomDevices(rng), randomRequest(rng)
		a := New(Options{}, 16000, 64<<30, devices)
		want := a.Slots(r)
		if never := a.NeverFits(r); (never.Code != "") != (want == 0) {
			t.Fatalf("seed %d, %+v: %d slots, never is %+v", seed, r, want, never)
		}
		got := 0
		for got <= MaxSlots {
			if al, _ := a.Reserve("a", r); al == nil {
				break
			}
			got++
		}
		if got < min(want, MaxSlots) || got > want && want < MaxSlots {
			t.Fatalf("seed %d, %+v on %+v: %d fit, Slots says %d", seed, r, devices, got, want)
		}
	}
}

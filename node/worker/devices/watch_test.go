package devices

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"mlfnode/cluster/inventory"
	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a Fake that can also hang.
type source struct {
	fake *inventorytest.Fake
	mu   sync.Mutex
	hang bool
}

func (s *source) Sample(ctx context.Context) (inventory.Sample, error) {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return inventory.Sample{}, inventory.ErrSilent
	}
	return s.fake.Sample(ctx)
}

// watchHarness is a Watch over scripted devices, in fake time.
type watchHarness struct {
	*Watch
	t       *testing.T
	source  *source
	books   *allocator.Allocator
	use     []string // UUIDs that trials may use; nil means all
	reserve int64
}

// list returns the devices that the node's settings make of a machine.
func (s *watchHarness) list(m *inventory.Machine) []allocator.Device {
	var all []allocator.Device
	for _, g := range m.GPUs {
		d := allocator.Device{
			UUID: g.UUID, Index: g.Index, Name: g.Name, Total: g.Memory, Memory: g.Memory - s.reserve,
			Exclusive: g.Mode == inventory.Exclusive,
		}
		if g.Problem != "" {
			d.State, d.Why = allocator.Sick, g.Problem
		}
		if !g.MIG && (s.use == nil || slices.Contains(s.use, g.UUID)) {
			all = append(all, d)
		}
		for _, in := range g.Instances {
			part := d
			part.UUID, part.Parent, part.Profile, part.Total, part.Memory = in.UUID, g.UUID, in.Profile,
				in.Memory, in.Memory
			all = append(all, part)
		}
	}
	return all
}

// machine reads the whole machine.
func (s *watchHarness) machine() inventory.Machine {
	var m inventory.Machine
	s.source.fake.Read(context.Background(), &m)
	return m
}

// withWatch runs a test on a Watch over the devices of a description. The machine is read every ten
// seconds, as by an inventory.Watcher.
func withWatch(t *testing.T, description string, foreign Foreign, test func(*watchHarness)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fake, err := inventorytest.New(description, "n", "")
		if err != nil {
			t.Fatal(err)
		}
		s := &watchHarness{
			t: t, source: &source{fake: fake},
			books: allocator.New(allocator.Options{Watched: true}, 64000, 64<<30, nil),
		}
		s.reserve = 512 << 20
		s.Watch = New(Config{
			Source: s.source, Allocator: s.books, ListDevices: s.list, SetDevices: s.books.SetDevices, Foreign: foreign,
			CacheDir: "/cache/of/this/node",
			Logger:   slog.New(slog.DiscardHandler), File: filepath.Join(dir, "devices.json"), Boot: "b",
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		s.SetMachine(s.machine())
		go func() { ended <- s.Run(ctx) }()
		reads := time.NewTicker(10 * time.Second)
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-reads.C:
					s.SetMachine(s.machine())
				}
			}
		}()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(2 * dirtyInterval)
		synctest.Wait()
		test(s)
	})
}

// advance continues the script, and lets some time pass.
func (s *watchHarness) advance(wait time.Duration, lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		if err := s.source.fake.Do(line); err != nil {
			s.t.Fatal(err)
		}
	}
	time.Sleep(wait)
	synctest.Wait()
}

// expectState compares the state of a device in the books, and checks the text of its reason.
func (s *watchHarness) expectState(index int, state allocator.State, why string) {
	s.t.Helper()
	for _, d := range s.books.Usage().Devices {
		if d.Index != index || d.Parent != "" {
			continue
		}
		if d.State != state || !strings.Contains(d.Why, why) {
			s.t.Errorf("GPU %d is %q: %q, want %q: %q", index, d.State, d.Why, state, why)
		}
		return
	}
	s.t.Errorf("the books have no GPU %d", index)
}

// reserveDevices reserves devices from the books, as a worker does for a trial.
func (s *watchHarness) reserveDevices(r grid.Resources) *allocator.Allocation {
	s.t.Helper()
	al, refusal := s.books.Reserve("lane", r)
	if al == nil {
		s.t.Fatalf("refused: %v", refusal)
	}
	return al
}

func (s *watchHarness) release(al *allocator.Allocation) {
	s.MarkDirty(al)
	s.books.Release(al, true)
}

func trial(index int64) grid.TrialID { return grid.TrialID{Sweep: "s-1", Index: index} }

// program starts a real process like a trial's, before time is faked.
func program(t *testing.T, env ...string) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

func attemptEnviron(index int64, number int) []string {
	return []string{
		"MLF_TRIAL=" + trial(index).String(), fmt.Sprint("MLF_ATTEMPT=", number), "MLF_CACHE=/cache/of/this/node",
	}
}

// TestDirty returns a device that is not free immediately: first its program hangs, then its memory
// stays in use.
func TestDirty(t *testing.T) {
	pid := program(t, attemptEnviron(1, 1)...)
	withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		uuid := al.Shares[0].UUID
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
		s.advance(2*time.Second, fmt.Sprintf("use %s %d 3GiB", uuid, pid), "busy 0 80")
		s.expectState(0, allocator.Ready, "")
		if r := s.End(s.t.Context(), trial(1), 1, false); len(r.Use) != 1 || r.Use[0].Peak != 3<<30 ||
			r.Use[0].Busy == 0 || r.Evidence.Xid != 0 {
			t.Errorf("got %+v", r)
		}
		s.release(al)
		s.expectState(0, allocator.Dirty, "")
		s.advance(time.Second)
		s.expectState(0, allocator.Dirty, "not free yet")
		s.advance(10 * time.Second)
		s.expectState(0, allocator.Dirty, "left by trial s-1/1")
		s.advance(2*time.Second, fmt.Sprintf("use %s %d 0", uuid, pid), "leak 0 3GiB")
		s.expectState(0, allocator.Dirty, "3.1 GiB held by no program")
		s.expectState(1, allocator.Ready, "")
		s.advance(2*time.Second, "leak 0 0")
		s.expectState(0, allocator.Ready, "")
		if s.reserveDevices(grid.Resources{GPUs: 2 * grid.One}) == nil {
			t.Error("both devices can't be had")
		}
	})
}

// TestDirtyIsShort measures how long a device that is free immediately is held back.
func TestDirtyIsShort(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		for range 20 {
			s.release(s.reserveDevices(grid.Resources{GPUs: grid.One}))
			s.advance(2 * dirtyInterval)
			s.expectState(0, allocator.Ready, "")
		}
	})
}

// TestDirtyShare ends one of two trials on a device while the other continues to use its memory.
func TestDirtyShare(t *testing.T) {
	first, second := program(t, attemptEnviron(1, 1)...), program(t, attemptEnviron(2, 1)...)
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		a, b := s.reserveDevices(grid.Resources{GPUs: 500}), s.reserveDevices(grid.Resources{GPUs: 250})
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: a.UUIDs()})
		s.Begin(Attempt{Trial: trial(2), Number: 1, Devices: b.UUIDs()})
		s.advance(2*time.Second, fmt.Sprintf("use 0 %d 20GiB", first), fmt.Sprintf("use 0 %d 10GiB", second))
		s.advance(2*time.Second, fmt.Sprintf("use 0 %d 0", first))
		r := s.End(s.t.Context(), trial(1), 1, true)
		s.release(a)
		s.advance(time.Second)
		s.expectState(0, allocator.Ready, "")
		if r.Use[0].Peak != 20<<30 || !r.Evidence.Neighbours || r.Evidence.Full || r.Evidence.Several {
			t.Errorf("got %+v", r)
		}
		s.advance(2*time.Second, fmt.Sprintf("use 0 %d 39GiB", second))
		if r := s.End(s.t.Context(), trial(2), 1, true); !r.Evidence.Full || r.Evidence.Neighbours {
			t.Errorf("got %+v", r)
		}
	})
}

// TestGone makes a device fall off the bus under an attempt, and come back.
func TestGone(t *testing.T) {
	for line, why := range map[string]string{"gone 0": "does not show it any more", "lost 0": "fell off the bus"} {
		withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
			al := s.reserveDevices(grid.Resources{GPUs: grid.One})
			s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
			s.advance(15*time.Second, line)
			s.expectState(0, allocator.Gone, why)
			s.expectState(1, allocator.Ready, "")
			if r := s.End(s.t.Context(), trial(1), 1, true); !r.Evidence.Gone ||
				r.Evidence.Device != al.Shares[0].UUID {
				t.Errorf("got %+v", r.Evidence)
			}
			s.release(al)
			if m := s.Annotate(s.machine()); len(m.GPUs) != 2 || m.GPUs[0].State != "gone" || m.Groups[0].Ready != 1 {
				t.Errorf("got %+v", m)
			}
			s.advance(30*time.Second, "back 0")
			s.expectState(0, allocator.Gone, "")
			s.advance(2 * time.Minute)
			s.expectState(0, allocator.Ready, "")
		})
	}
}

// TestUnknownHealth keeps all states if the driver itself has a problem, and reports that.
func TestUnknownHealth(t *testing.T) {
	withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
		s.advance(time.Minute, "wait fail")
		s.expectState(0, allocator.Ready, "")
		if m := s.Annotate(s.machine()); m.GPUs[0].State != "ready" ||
			!strings.Contains(m.GPUs[0].Why, "health unknown") {
			t.Errorf("got %+v", m.GPUs[0])
		}
		s.advance(10*time.Second, "driver fail")
		s.expectState(1, allocator.Ready, "")
		s.advance(time.Minute)
		s.expectState(1, allocator.Sick, "the driver has not answered since 00:0")
		s.advance(time.Minute, "wait ok", "driver ok")
		s.expectState(1, allocator.Ready, "")
		if m := s.Annotate(s.machine()); m.GPUs[0].Why != "" {
			t.Errorf("got %+v", m.GPUs[0])
		}
	})
}

// TestOldSample makes the driver stop answering: the last known state of the devices does not
// become better with time, and no trial gets one.
func TestOldSample(t *testing.T) {
	pid := program(t)
	withWatch(t, "3xA100-40", Avoid, func(s *watchHarness) {
		s.advance(15*time.Second, fmt.Sprintf("use 0 %d 3GiB", pid), "recovery 1 1", "gone 2")
		s.advance(15*time.Second, "recovery 1 0", "back 2")
		s.source.mu.Lock()
		s.source.hang = true
		s.source.mu.Unlock()
		for range 20 {
			s.advance(10 * time.Second)
			for _, d := range s.books.Usage().Devices {
				if d.State == allocator.Ready {
					t.Fatalf("GPU %d is given away by an old sample: %+v", d.Index, d)
				}
			}
		}
		s.expectState(0, allocator.Sick, "the driver has not answered since")
		s.source.mu.Lock()
		s.source.hang = false
		s.source.mu.Unlock()
		s.advance(3*time.Minute, fmt.Sprintf("use 0 %d 0", pid))
		for i := range 3 {
			s.expectState(i, allocator.Ready, "")
		}
	})
}

// TestShortAbsence makes the driver omit a device for a moment while the devices are read many
// times a second. That is no reason to wait a minute for it; and an attempt that fails then is told
// so.
func TestShortAbsence(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
		s.advance(5 * time.Second)
		s.MarkDirty(al)
		s.advance(goneAfter/2, "gone 0")
		s.expectState(0, allocator.Dirty, "")
		if r := s.End(s.t.Context(), trial(1), 1, true); !r.Evidence.Gone {
			t.Errorf("got the evidence %+v", r.Evidence)
		}
		s.release(al)
		s.advance(5*time.Second, "back 0")
		s.expectState(0, allocator.Ready, "")
	})
}

// TestHungDriver checks that no caller waits for a driver that does not answer.
func TestHungDriver(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
		s.source.mu.Lock()
		s.source.hang = true
		s.source.mu.Unlock()
		s.advance(time.Minute)
		began := time.Now()
		s.End(s.t.Context(), trial(1), 1, true)
		s.AwaitFree(s.t.Context(), al)
		if d := time.Since(began); d > evidenceTimeout+maxDirtyTime {
			t.Errorf("the end of an attempt waited %v", d)
		}
		s.release(al)
		s.advance(time.Minute)
		s.expectState(0, allocator.Sick, "")
	})
}

// TestAwaitFree waits between two attempts of one lease.
func TestAwaitFree(t *testing.T) {
	pid := program(t, attemptEnviron(1, 1)...)
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
		s.advance(2*time.Second, fmt.Sprintf("use 0 %d 30GiB", pid))
		s.End(s.t.Context(), trial(1), 1, false)
		began := time.Now()
		time.AfterFunc(500*time.Millisecond, func() { s.source.fake.Do(fmt.Sprintf("use 0 %d 0", pid)) })
		s.AwaitFree(s.t.Context(), al)
		if d := time.Since(began); d < 500*time.Millisecond || d > time.Second {
			t.Errorf("waited %v, want until the memory is free", d)
		}
	})
}

// TestSettings checks that the settings of node.yaml are obeyed.
func TestSettings(t *testing.T) {
	withWatch(t, "3xA100-40", Avoid, func(s *watchHarness) {
		s.use = []string{s.source.fake.GPUs()[1].UUID}
		s.reserve = 4 << 30
		s.SetMachine(s.machine())
		devices := s.books.Usage().Devices
		if len(devices) != 1 || devices[0].Index != 1 || devices[0].Device.Memory != 36<<30 {
			t.Errorf("got %+v", devices)
		}
		if m := s.Annotate(s.machine()); m.GPUs[0].State != Unused || m.GPUs[1].State != "ready" ||
			m.Groups[0].Ready != 1 || m.Groups[0].Total != 3 {
			t.Errorf("got %+v", m)
		}
		s.use = []string{}
		s.SetMachine(s.machine())
		if devices := s.books.Usage().Devices; len(devices) != 0 {
			t.Errorf("got %+v", devices)
		}
	})
}

// TestModes checks that the modes in which the driver restricts programs are obeyed.
func TestModes(t *testing.T) {
	withWatch(t, "3xA100-40", Avoid, func(s *watchHarness) {
		s.advance(15*time.Second, "mode 0 exclusive", "lost 1")
		if al := s.reserveDevices(grid.Resources{GPUs: 500}); al.Shares[0].Index != 2 {
			t.Errorf("a share of GPU %d", al.Shares[0].Index)
		}
		if al := s.reserveDevices(grid.Resources{GPUs: grid.One}); al.Shares[0].Index != 0 {
			t.Errorf("GPU %d as a whole", al.Shares[0].Index)
		}
	})
}

// TestStrikes takes a device out of service on which different trials fail.
func TestStrikes(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		uuid := s.source.fake.GPUs()[0].UUID
		for range 5 {
			s.RecordFailure(uuid, trial(1), grid.ClassGPUFault)
		}
		s.advance(time.Second)
		s.expectState(0, allocator.Ready, "")
		s.RecordFailure(uuid, trial(2), grid.ClassGPUFault)
		s.advance(25 * time.Hour)
		s.RecordFailure(uuid, trial(3), grid.ClassGPUFault)
		s.advance(time.Second)
		s.expectState(0, allocator.Ready, "")
		s.RecordFailure(uuid, trial(4), grid.ClassGPUBusy)
		s.RecordFailure(uuid, trial(5), grid.ClassGPUBusy)
		s.advance(time.Second)
		s.expectState(0, allocator.Sick, "3 trials failed on it")
		s.RecordFailure("GPU-none", trial(5), grid.ClassGPUBusy)
	})
}

// TestRestoredDevices takes over what an earlier agent assigned, including a device that no longer
// exists.
func TestRestoredDevices(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		old := &allocator.Allocation{Shares: []allocator.Share{{UUID: "GPU-of-yesterday", Index: 4, Milli: grid.One}}}
		s.books.Restore(old)
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: old.UUIDs(), Whole: true})
		s.advance(15 * time.Second)
		if r := s.End(s.t.Context(), trial(1), 1, true); len(r.Use) != 1 || r.Evidence.Device != "GPU-of-yesterday" {
			t.Errorf("got %+v", r)
		}
		s.release(old)
		s.expectState(0, allocator.Ready, "")
	})
}

// TestWithoutGPUs checks that a machine without GPUs is rarely queried.
func TestWithoutGPUs(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		w := New(Config{Source: noSample(func() { asked++ }), Logger: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		if err := w.Run(ctx); err != nil || asked > 370 || w.HasDevices() || w.health != "" {
			t.Errorf("asked %d times in an hour: %v, %q", asked, err, w.health)
		}
	})
}

// noSample is a source without a driver.
type noSample func()

func (n noSample) Sample(context.Context) (inventory.Sample, error) {
	n()
	return inventory.Sample{}, inventory.ErrSilent
}

// TestDevicesBeforeTheFirstLook checks that no device is assigned before it has been examined:
// another program may be running on it.
func TestDevicesBeforeTheFirstLook(t *testing.T) {
	pid := program(t)
	withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
		second, err := inventorytest.New("2xA100-40", "another", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Do(fmt.Sprintf("use 0 %d 2GiB", pid)); err != nil {
			t.Fatal(err)
		}
		books := allocator.New(allocator.Options{Watched: true}, 64000, 64<<30, nil)
		w := New(
			Config{
				Source: second, Allocator: books, ListDevices: s.list, SetDevices: books.SetDevices, Foreign: Avoid,
				Logger: slog.New(slog.DiscardHandler),
			},
		)
		var m inventory.Machine
		second.Read(s.t.Context(), &m)
		w.SetMachine(m)
		if al, _ := books.Reserve("lane", grid.Resources{GPUs: 500}); al != nil {
			t.Errorf("got %+v", al)
		}
		time.Sleep(time.Millisecond)
		w.sample(s.t.Context())
		al, _ := books.Reserve("lane", grid.Resources{GPUs: grid.One})
		if al == nil || al.Shares[0].Index != 1 {
			t.Errorf("got %+v, want the GPU on which nobody is", al)
		}
	})
}

// repeatedSample is a source that returns the same sample for some time, as nvidia-smi's reader
// does for two seconds.
type repeatedSample struct{ sample inventory.Sample }

func (a *repeatedSample) Sample(context.Context) (inventory.Sample, error) { return a.sample, nil }

// TestSlowSource judges each sample once, however often it is returned.
func TestSlowSource(t *testing.T) {
	fake, err := inventorytest.New("2xA100-40", "n", "")
	if err != nil {
		t.Fatal(err)
	}
	gpus := fake.GPUs()
	source := &repeatedSample{}
	books := allocator.New(allocator.Options{Watched: true}, 64000, 64<<30, nil)
	w := New(Config{
		Source: source, Allocator: books, SetDevices: books.SetDevices, Foreign: Avoid,
		Logger: slog.New(slog.DiscardHandler),
		ListDevices: func(m *inventory.Machine) []allocator.Device {
			return []allocator.Device{{UUID: m.GPUs[0].UUID}, {UUID: m.GPUs[1].UUID, Index: 1}}
		},
	})
	w.SetMachine(inventory.Machine{GPUs: gpus})
	uses := []inventory.Use{{UUID: gpus[0].UUID, Listed: true}, {UUID: gpus[1].UUID, Listed: true}}
	states := func() (all []allocator.State) {
		for range 5 {
			w.sample(t.Context())
		}
		for _, d := range books.Usage().Devices {
			all = append(all, d.State)
		}
		return all
	}
	alien := []inventory.Process{{PID: program(t), Memory: 1 << 30}}
	for i, step := range []struct {
		uses []inventory.Use
		want []allocator.State
	}{
		{uses, []allocator.State{allocator.Ready, allocator.Ready}},
		{
			[]inventory.Use{{UUID: gpus[0].UUID, Listed: true, Processes: alien}},
			[]allocator.State{allocator.Ready, allocator.Ready},
		},
		{
			[]inventory.Use{{UUID: gpus[0].UUID, Listed: true, Processes: alien}},
			[]allocator.State{allocator.Foreign, allocator.Gone},
		},
	} {
		source.sample = inventory.Sample{Time: time.Now().Add(time.Duration(i) * goneAfter), Uses: step.uses}
		if got := states(); !slices.Equal(got, step.want) {
			t.Errorf("sample %d: got %q, want %q", i, got, step.want)
		}
	}
}

package devices

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/failure"
	"mlfnode/node/worker/allocator"
)

// TestFaults makes the driver report errors of every kind, and checks when a device is taken out of
// service.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		xid, times int
		state      allocator.State
	}{
		{13, 5, allocator.Ready}, // in one sweep
		{63, 9, allocator.Ready}, {154, 9, allocator.Ready},
		{94, 2, allocator.Ready}, {94, 3, allocator.Sick},
		{48, 1, allocator.Sick}, {95, 1, allocator.Sick}, {119, 1, allocator.Sick}, {79, 1, allocator.Sick},
		{74, 1, allocator.Sick}, {54, 1, allocator.Sick},
		{109, 1, allocator.Ready}, {109, 2, allocator.Sick},
		{999, 2, allocator.Ready}, {999, 3, allocator.Sick},
	} {
		withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
			al := s.reserveDevices(grid.Resources{GPUs: grid.One})
			s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
			for range tt.times {
				s.advance(time.Second, fmt.Sprintf("xid 0 %d", tt.xid))
			}
			s.expectState(
				0, tt.state, map[allocator.State]string{allocator.Sick: fmt.Sprintf("Xid %d: ", tt.xid)}[tt.state],
			)
			s.expectState(1, allocator.Ready, "")
			want := tt.xid
			if failure.XidOf(tt.xid).Class == grid.ClassNone {
				want = 0
			}
			if r := s.End(s.t.Context(), trial(1), 1, true); r.Evidence.Xid != want ||
				r.Evidence.Device != al.Shares[0].UUID {
				t.Errorf("Xid %d: got the evidence %+v", tt.xid, r.Evidence)
			}
			s.advance(2 * time.Minute)
			s.expectState(0, tt.state, "")
			s.ReturnToService()
			s.advance(time.Second)
			if s.release(al); tt.state == allocator.Sick {
				s.advance(time.Second)
			}
			s.advance(time.Second)
			s.expectState(0, allocator.Ready, "")
		})
	}
}

// TestFaultsOutliveTheAgent checks that the next agent knows which devices are out of service and
// how often others have failed, until the machine reboots or a user undrains the node.
func TestFaultsOutliveTheAgent(t *testing.T) {
	withWatch(t, "4xA100-40", Avoid, func(s *watchHarness) {
		gpus := s.source.fake.GPUs()
		s.advance(15*time.Second, "xid 0 95", "xid 1 94", "xid 1 94")
		for i := range int64(failuresUntilSick) {
			s.RecordFailure(gpus[2].UUID, trial(i), grid.ClassGPUBusy)
		}
		s.advance(time.Second)
		next := func(boot string) (*Watch, []allocator.State) {
			cfg := s.cfg
			cfg.Allocator, cfg.Boot = allocator.New(allocator.Options{Watched: true}, 64000, 64<<30, nil), boot
			cfg.SetDevices = cfg.Allocator.SetDevices
			w := New(cfg)
			w.SetMachine(s.machine())
			for range 3 {
				w.sample(s.t.Context())
				<-time.After(time.Second)
			}
			var states []allocator.State
			for _, d := range cfg.Allocator.Usage().Devices {
				states = append(states, d.State)
			}
			return w, states
		}
		w, got := next("b")
		want := []allocator.State{allocator.Sick, allocator.Ready, allocator.Sick, allocator.Ready}
		if !slices.Equal(got, want) {
			t.Errorf("got %q under the next agent, want %q", got, want)
		}
		s.source.fake.Do("xid 1 94") // the third within a day, the first that this agent sees
		w.sample(s.t.Context())
		want[1] = allocator.Sick
		if _, got := next("b"); !slices.Equal(got, want) {
			t.Errorf("got %q after a third error, want %q", got, want)
		}
		ready := []allocator.State{allocator.Ready, allocator.Ready, allocator.Ready, allocator.Ready}
		if _, got := next("c"); !slices.Equal(got, ready) {
			t.Errorf("got %q after another start of the machine, want %q", got, ready)
		}
		w.ReturnToService()
		w.sample(s.t.Context())
		if _, got := next("b"); !slices.Equal(got, ready) {
			t.Errorf("got %q after the node was undrained, want %q", got, ready)
		}
		if err := os.WriteFile(s.cfg.File, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, got := next("b"); !slices.Equal(got, ready) {
			t.Errorf("got %q from a file that is damaged, want %q", got, ready)
		}
	})
}

// TestFaultsOfPrograms checks that errors that programs cause are evidence for their attempts, and
// say nothing about the device, however many sweeps they come from. Killing a CUDA program causes
// one as well.
func TestFaultsOfPrograms(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		uuid := s.source.fake.GPUs()[0].UUID
		for i := range 3 {
			s.expectState(0, allocator.Ready, "")
			id := grid.TrialID{Sweep: grid.SweepID(fmt.Sprint("s-", i))}
			s.Begin(Attempt{Trial: id, Number: 1, Devices: []string{uuid}})
			s.advance(2*time.Second, "xid 0 31", "xid 0 45")
			if r := s.End(s.t.Context(), id, 1, true); r.Evidence.Xid != 31 {
				t.Errorf("got %+v, want the first error", r.Evidence)
			}
		}
		s.advance(time.Second)
		s.expectState(0, allocator.Ready, "")
	})
}

// TestFaultAtTheEnd makes the driver report an error after the error has ended the program.
func TestFaultAtTheEnd(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		uuid := s.source.fake.GPUs()[0].UUID
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: []string{uuid}})
		s.advance(5 * time.Second)
		s.source.fake.Do("xid 0 48")
		began := time.Now()
		if r := s.End(s.t.Context(), trial(1), 1, true); r.Evidence.Xid != 48 || time.Since(began) > evidenceTimeout {
			t.Errorf("got %+v after %v", r.Evidence, time.Since(began))
		}
	})
}

// TestFaultWithoutDevice checks that such an error is evidence for attempts and takes no device out
// of service.
func TestFaultWithoutDevice(t *testing.T) {
	withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
		gpus := s.source.fake.GPUs()
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: []string{gpus[1].UUID}})
		s.advance(2*time.Second, "xid ? 79")
		s.expectState(0, allocator.Ready, "")
		s.expectState(1, allocator.Ready, "")
		if r := s.End(s.t.Context(), trial(1), 1, true); r.Evidence.Xid != 79 || r.Evidence.Device != gpus[1].UUID {
			t.Errorf("got %+v", r.Evidence)
		}
	})
}

// TestFaultOfAnInstance checks that the other instances of the GPU stay in service.
func TestFaultOfAnInstance(t *testing.T) {
	withWatch(t, "1xA100-40:1g.5gb*3", Avoid, func(s *watchHarness) {
		s.advance(15*time.Second, "xid 0.1 95")
		sick := 0
		for _, d := range s.books.Usage().Devices {
			if d.State == allocator.Sick {
				sick++
				if d.UUID != s.source.fake.GPUs()[0].Instances[1].UUID {
					t.Errorf("%s is sick", d.UUID)
				}
			}
		}
		if sick != 1 {
			t.Errorf("%d devices are sick, want 1", sick)
		}
		if m := s.Annotate(s.machine()); m.GPUs[0].Instances[1].State != "sick" || m.Groups[0].Ready != 2 ||
			m.Groups[0].Total != 3 {
			t.Errorf("got %+v", m)
		}
	})
}

// TestRecovery checks that the recovery action reported by the driver determines what has to be
// done, and when it has been done.
func TestRecovery(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		s.advance(15*time.Second, "xid 0 48", "recovery 0 1")
		s.expectState(0, allocator.Sick, "needs a reset")
		s.ReturnToService()
		s.advance(30 * time.Second)
		s.expectState(0, allocator.Sick, "needs a reset")
		s.advance(30*time.Second, "recovery 0 0")
		s.expectState(0, allocator.Sick, "")
		s.advance(2 * time.Minute)
		s.expectState(0, allocator.Ready, "")
		s.advance(15*time.Second, "recovery 0 2")
		s.expectState(0, allocator.Sick, "needs a restart")
	})
}

package devices

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/procfs"
	"mlfnode/node/worker/allocator"
)

// TestForeign runs another user's program on a device.
func TestForeign(t *testing.T) {
	pid, desktop, server := program(t), program(t), program(t) // the last one as that of MPS
	lines := []string{
		fmt.Sprintf("use 0 %d 2GiB", pid), fmt.Sprintf("draw 1 %d 500MiB", desktop),
		fmt.Sprintf("use 1 %d 30MiB", server),
	}
	withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
		s.advance(15*time.Second, lines...)
		s.expectState(0, allocator.Foreign, fmt.Sprintf("used by sleep (pid %d, user ", pid))
		s.expectState(1, allocator.Ready, "")
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		if al.Shares[0].Index != 1 {
			t.Errorf("got GPU %d", al.Shares[0].Index)
		}
		s.advance(5*time.Second, fmt.Sprintf("use 0 %d 0", pid))
		s.expectState(0, allocator.Foreign, "gpus.foreign: ignore")
		s.advance(20 * time.Second)
		s.expectState(0, allocator.Ready, "")
	})
	withWatch(t, "2xA100-40", Ignore, func(s *watchHarness) {
		s.advance(30*time.Second, lines...)
		s.expectState(0, allocator.Ready, "")
	})
}

// TestDeviceOfAnother lets a trial use a device that was not assigned to it. That does not make it
// a foreign program.
func TestDeviceOfAnother(t *testing.T) {
	pid := program(t, attemptEnviron(7, 2)...)
	withWatch(t, "2xA100-40", Avoid, func(s *watchHarness) {
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		s.Begin(Attempt{Trial: trial(7), Number: 2, Devices: al.UUIDs(), Whole: true})
		s.advance(30*time.Second, fmt.Sprintf("use 1 %d 1GiB", pid))
		s.expectState(1, allocator.Ready, "")
		r := s.End(s.t.Context(), trial(7), 2, false)
		if r.Use[0].Peak != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

// TestOwners identifies attempts by their main programs if the environment does not identify them,
// and by their containers.
func TestOwners(t *testing.T) {
	bare, ours, other := program(t), program(t, "MLF_CACHE=/cache/of/this/node"), program(
		t, "MLF_TRIAL=s-1/9", "MLF_ATTEMPT=1", "MLF_CACHE=/another",
	)
	w := New(Config{CacheDir: "/cache/of/this/node", Logger: slog.New(slog.DiscardHandler)})
	w.Begin(Attempt{Trial: trial(1), Number: 1})
	by := w.index()
	if o := by.ownerOf(bare, w.cfg.CacheDir); o.ours || o.running || !strings.HasPrefix(o.program, "sleep (pid ") {
		t.Errorf("got %+v", o)
	}
	if o := by.ownerOf(ours, w.cfg.CacheDir); !o.ours || o.running {
		t.Errorf("got %+v", o)
	}
	if o := by.ownerOf(other, w.cfg.CacheDir); o.ours || o.running {
		t.Errorf("got %+v", o)
	}
	w.Started(trial(1), 1, bare, "")
	by = w.index()
	if o := by.ownerOf(bare, w.cfg.CacheDir); !o.running || o.key.trial != trial(1) {
		t.Errorf("by its main program: got %+v", o)
	}
	w.Started(trial(1), 1, 0, strings.TrimSpace(procfs.Text(other, "cgroup")))
	by = w.index()
	if o := by.ownerOf(other, w.cfg.CacheDir); !o.running {
		t.Errorf("by its container: got %+v", o)
	}
	if o := by.ownerOf(1<<30, w.cfg.CacheDir); o.running || o.program == "" || !o.unknown {
		t.Errorf("of nobody: got %+v", o)
	}
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(
		passwd, []byte("root:x:0:0::/root:/bin/sh\nodd\nada\x1b[1m:x:1000:1000::/home/ada:/bin/sh\n"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{0: "root", 1001: "1001"} {
		if got := userText(passwd, uid); got != want {
			t.Errorf("user %d: got %q, want %q", uid, got, want)
		}
	}
	if got := userText(passwd, 1000); strings.Contains(got, "\x1b") || !strings.HasPrefix(got, "ada") {
		t.Errorf("got %q", got)
	}
}

// TestFirstLookAtWhatIsTakenOver examines a device before the main program of the attempt on it is
// known.
func TestFirstLookAtWhatIsTakenOver(t *testing.T) {
	pid := program(t)
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		books := allocator.New(allocator.Options{Watched: true}, 64000, 64<<30, nil)
		w := New(
			Config{
				Source: s.source, Allocator: books, ListDevices: s.list, SetDevices: books.SetDevices, Foreign: Avoid,
				Logger: slog.New(slog.DiscardHandler),
			},
		)
		w.SetMachine(s.machine())
		s.advance(time.Second, fmt.Sprintf("use 0 %d 2GiB", pid))
		state := func() (allocator.State, string) { d := books.Usage().Devices[0]; return d.State, d.Why }
		w.Begin(Attempt{Trial: trial(1), Number: 1, Devices: []string{s.machine().GPUs[0].UUID}, Whole: true})
		w.sample(s.t.Context())
		if state, why := state(); state == allocator.Foreign {
			t.Errorf("got %s: %s", state, why)
		}
		w.Started(trial(1), 1, pid, "")
		s.advance(time.Second)
		w.sample(s.t.Context())
		if state, why := state(); state != allocator.Ready {
			t.Errorf("got %s: %s", state, why)
		}
	})
}

// TestProgramsOfNobody checks programs of which only their presence is known: those of an agent in
// its own PID namespace, and those that are exiting. Their owner is uncertain, so they keep a
// released device from the next trial for a moment, and are attributed to the trial that holds it.
func TestProgramsOfNobody(t *testing.T) {
	withWatch(t, "1xA100-40", Avoid, func(s *watchHarness) {
		const pid = 1 << 30
		al := s.reserveDevices(grid.Resources{GPUs: grid.One})
		s.Begin(Attempt{Trial: trial(1), Number: 1, Devices: al.UUIDs(), Whole: true})
		s.advance(15*time.Second, fmt.Sprintf("use 0 %d 3GiB", pid))
		s.expectState(0, allocator.Ready, "")
		if r := s.End(s.t.Context(), trial(1), 1, false); r.Use[0].Peak != 3<<30 || r.Evidence.Neighbours {
			t.Errorf("got %+v", r)
		}
		s.release(al)
		s.advance(time.Second)
		s.expectState(0, allocator.Dirty, "")
		s.advance(time.Second, fmt.Sprintf("use 0 %d 0", pid))
		s.expectState(0, allocator.Ready, "")
		s.release(s.reserveDevices(grid.Resources{GPUs: grid.One}))
		s.advance(5*time.Second, fmt.Sprintf("use 0 %d 3GiB", pid))
		s.advance(20 * time.Second)
		s.expectState(0, allocator.Ready, "")
	})
}

package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

func newPool(t *testing.T) *spoolPool {
	t.Helper()
	p, err := newSpoolPool(filepath.Join(t.TempDir(), "spool"), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func (p *spoolPool) mustTake(t *testing.T) *spool {
	t.Helper()
	s, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestManifestSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	s, err := openSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := &manifest{
		Sweep: "a-rather-long-name-1", Index: 123456789, Attempt: 3, Run: "node.1.zz", Started: 1_700_000_000_000_000,
		Result: &grid.Result{
			Class: grid.ClassExit, ExitCode: 3, Reason: "exit code 3\nlast line", Started: 1_700_000_000_000_000,
		},
	}
	short := &manifest{Sweep: "a-1", Attempt: 1, Run: "n.1.1", Started: 1}
	for _, m := range []*manifest{long, short, long} { // a shorter one leaves the end of the longer one after it
		if err := s.writeManifest(m); err != nil {
			t.Fatal(err)
		}
		s.close()
		got, err := readManifest(filepath.Join(dir, "attempt.json"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("manifest (-want +got):\n%s", diff)
		}
		if s, err = openSpool(dir); err != nil {
			t.Fatal(err)
		}
	}
	defer s.close()
	if err := s.reset(); err != nil {
		t.Fatal(err)
	}
	if got, err := readManifest(filepath.Join(dir, "attempt.json")); got != nil || err != nil {
		t.Errorf("manifest of a clean spool: got %+v, %v, want none", got, err)
	}
}

func TestDamagedManifest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "attempt.json")
	for text, want := range map[string]bool{
		"": true, `{"sweep":"a-1","ind`: false, "\x00\x00\x00": false, `{"sweep":"a-1"}` + "\nrest": true,
	} {
		write(t, file, text)
		if _, err := readManifest(file); (err == nil) != want {
			t.Errorf("manifest %q: got %v, want it to be accepted: %t", text, err, want)
		}
	}
}

// TestTouchedSpools runs programs that leave something: each is detected, even by a spool that has
// just been reset.
func TestTouchedSpools(t *testing.T) {
	for name, program := range map[string]func(t *testing.T, s *spool){
		"stdout":  func(t *testing.T, s *spool) { s.stdout.WriteString("x") },
		"stderr":  func(t *testing.T, s *spool) { s.stderr.WriteString("x") },
		"file":    func(t *testing.T, s *spool) { write(t, filepath.Join(s.work, "x"), "") },
		"out":     func(t *testing.T, s *spool) { write(t, filepath.Join(s.out, "x"), "") },
		"metrics": func(t *testing.T, s *spool) { write(t, s.metrics, "") },
		"removed folder": func(t *testing.T, s *spool) {
			if err := os.Remove(s.work); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, age := range []time.Duration{0, time.Hour} {
			p := newPool(t)
			s := p.mustTake(t)
			began := s.cleanedAt.Add(age)
			if !s.isUntouched(began) {
				t.Errorf("%s: a new spool counts as touched", name)
			}
			program(t, s)
			if s.isUntouched(began) {
				t.Errorf("%s, %v after the spool was cleaned: got untouched", name, age)
			}
			p.release(s, true)
			again := p.mustTake(t)
			if again != s {
				t.Errorf("%s: the cleaned spool is not used again", name)
			}
			if names := entries(t, again); !again.isUntouched(again.cleanedAt) || len(names) != 0 {
				t.Errorf("%s: cleaned spool holds %v", name, names)
			}
			p.release(again, true)
		}
	}
}

// entries lists what a program has left.
func entries(t *testing.T, s *spool) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"work/*", "out/*", "metrics"} {
		found, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	for _, f := range []*os.File{s.manifest, s.stdout, s.stderr} {
		if info, err := f.Stat(); err != nil || info.Size() > 0 {
			names = append(names, f.Name())
		}
	}
	return names
}

func TestUntouchedSpoolIsUsedAgain(t *testing.T) {
	p := newPool(t)
	first := p.mustTake(t)
	p.releaseUntouched(first)
	if second := p.mustTake(t); second != first {
		t.Errorf("got spool %s, want %s again", second.dir, first.dir)
	}
	other := p.mustTake(t)
	if other == first {
		t.Error("one spool was given twice")
	}
	p.release(other, true)
	p.release(first, true)
}

// TestSpoolOfLeftoversIsThrownAway releases a spool to which processes may still write.
func TestSpoolOfLeftoversIsThrownAway(t *testing.T) {
	p := newPool(t)
	s := p.mustTake(t)
	write(t, filepath.Join(s.work, "x"), "x")
	if err := os.Chmod(s.work, 0o500); err != nil {
		t.Fatal(err)
	}
	p.release(s, false)
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("thrown away spool: got %v, want it gone", err)
	}
	if again := p.mustTake(t); again == s {
		t.Error("a spool that was thrown away is used again")
	}
}

// TestSpoolsAreBounded takes the maximum number of spools; the next one waits until one is
// returned.
func TestSpoolsAreBounded(t *testing.T) {
	p := newPool(t)
	p.taken = make(chan struct{}, 2)
	first, _ := p.mustTake(t), p.mustTake(t)
	taken := make(chan *spool)
	go func() {
		s, _ := p.acquire(t.Context())
		taken <- s
	}()
	select {
	case <-taken:
		t.Fatal("got a third spool of two")
	default:
	}
	p.release(first, true)
	if s := receive(t, "a spool that came back", taken); s != first {
		t.Errorf("got %v, want the spool that came back", s)
	}
}

// TestSpoolIsWaitedForUntilTheAttemptIsStopped waits while no spool is returned.
func TestSpoolIsWaitedForUntilTheAttemptIsStopped(t *testing.T) {
	p := newPool(t)
	p.taken = make(chan struct{}, 1)
	p.mustTake(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := p.acquire(ctx)
		given <- err
	}()
	cause := errors.New("enough")
	cancel(cause)
	if err := receive(t, "the end of the wait", given); err != cause {
		t.Errorf("got %v, want %v", err, cause)
	}
	if got := len(p.taken); got != 1 {
		t.Errorf("spools out: got %d, want 1", got)
	}
}

func TestSpoolsOnAFullDisk(t *testing.T) {
	p := newPool(t)
	p.taken = make(chan struct{}, 1)
	if err := os.Remove(p.dir); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a spool that could not be made must not count as taken
		if s, err := p.acquire(t.Context()); err == nil {
			t.Fatalf("got spool %s in a folder that is gone", s.dir)
		}
	}
}

// TestManifestTemplate compares a manifest written from a template with the same manifest written
// as a whole.
func TestManifestTemplate(t *testing.T) {
	for name, shared := range map[string]manifest{
		"nothing": {},
		"lease": {
			Sweep: `a"b-1`, Boot: "boot",
			Lease: &leaseRecord{ID: "m.1.7", Seq: 7, Lo: 3, Hi: 9, Attempt: 2, Shape: "c1"},
		},
		"allocation": {
			Sweep: "a-1",
			Allocation: &allocator.Allocation{
				Lane: "c1", CPUs: 1500, Memory: 1 << 30, Shares: []allocator.Share{{UUID: "GPU-1", Milli: 500}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "1")
			s, err := openSpool(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			template, err := newManifestTemplate(shared)
			if err != nil {
				t.Fatal(err)
			}
			for _, index := range []int64{0, 123456789} {
				want := shared
				want.Index, want.Attempt, want.Run, want.Started = index, 3, "node-1.4.zz", 1_700_000_000_000_000
				a := &attempt{
					attemptSpec: attemptSpec{
						id: grid.TrialID{Sweep: shared.Sweep, Index: index}, number: 3, run: want.Run,
						started: time.UnixMicro(want.Started),
					},
				}
				claimed, err := template.manifest(a), template.write(s, a)
				if err != nil {
					t.Fatal(err)
				}
				got, err := readManifest(filepath.Join(dir, "attempt.json"))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(&want, got) + cmp.Diff(&want, claimed); diff != "" {
					t.Errorf("manifest (-want +got):\n%s", diff)
				}
			}
		})
	}
}

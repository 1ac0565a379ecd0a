package worker

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
)

// spool creates a spool as left by an agent that died: with the manifest, if there is one, and with
// output.
func (s *harness) spool(n int, m *manifest, stdout string) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "spool", strconv.Itoa(n))
	sp, err := openSpool(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	defer sp.close()
	if m != nil {
		if err := sp.writeManifest(m); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := io.WriteString(sp.stdout, stdout); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// recover lets a new worker report what is left, and returns all results of the sweep.
func (s *harness) recover(id grid.SweepID) (*Worker, []grid.Event) {
	s.t.Helper()
	w := s.worker(nil)
	if err := w.recovery.run(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	p := &outboxHarness{t: s.t, store: s.store}
	return w, p.stored(id)
}

func assertRemoved(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("spool %s: got %v, want it gone", filepath.Base(dir), err)
	}
}

const (
	began = 1_700_000_000_000_000 // microseconds since 1970
	wall  = 5_000_000
)

func TestRecoverReportsAResultOnce(t *testing.T) {
	s := newHarness(t, nil)
	r := s.sweep("t-1", 10, 1, func(r *grid.Sweep) { r.Task.Metrics = []grid.Source{{Regex: `loss=(?P<loss>\S+)`}} })
	m := &manifest{
		Sweep: r.ID, Index: 7, Attempt: 2, Run: "n.1.5", Started: began,
		Result: &grid.Result{Started: began, Usage: grid.Usage{Wall: wall, CPU: 1}},
	}
	dir := s.spool(3, m, "loss=0.5\n")
	write(t, filepath.Join(dir, "out", "model"), "weights")
	_, all := s.recover(r.ID)
	if len(all) != 1 {
		t.Fatalf("events: got %v, want one", kinds(all))
	}
	want := grid.Event{
		Kind: grid.Finished, Index: 7, Attempt: 2, Run: "n.1.5", Time: began + wall,
		Result: &grid.Result{
			Started: began, Usage: grid.Usage{Wall: wall, CPU: 1}, Metrics: grid.Metric{"loss": []byte("0.5")},
			Log: grid.LogRef{First: 1, Last: 1, Bytes: 9}, Files: grid.FilesRef{Count: 1, Bytes: 7},
		},
	}
	if diff := cmp.Diff(want, all[0]); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if got := s.output(r.ID, "n.1.5", streamOut); got != "loss=0.5\n" {
		t.Errorf("output: got %q", got)
	}
	assertRemoved(t, dir)
	if _, all := s.recover(r.ID); len(all) != 1 {
		t.Errorf("events after a further start: got %v, want no more", kinds(all))
	}
}

func TestRecoverTellsOfALostAttempt(t *testing.T) {
	s := newHarness(t, nil)
	r := s.sweep("t-1", 10, 1, nil)
	dir := s.spool(1, &manifest{Sweep: r.ID, Index: 3, Attempt: 1, Run: "n.1.1", Started: began}, "epoch 1\nepoch 2\n")
	_, all := s.recover(r.ID)
	if len(all) != 1 {
		t.Fatalf("events: got %v, want one", kinds(all))
	}
	e := all[0]
	want := grid.Result{
		Class: grid.ClassLost, ExitCode: -1, Reason: "the node agent died while it ran\nepoch 1\nepoch 2",
		Started: began,
		Log:     grid.LogRef{First: 1, Last: 1, Bytes: 16},
	}
	if diff := cmp.Diff(&want, e.Result); diff != "" || e.Index != 3 || e.Run != "n.1.1" || e.Kind != grid.Finished {
		t.Errorf("event %s of run %s of trial %d, result (-want +got):\n%s", e.Kind, e.Run, e.Index, diff)
	}
	assertRemoved(t, dir)
}

// TestRecoverAfterThePowerWent checks that no result is trusted that may have reached the disk
// without its output.
func TestRecoverAfterThePowerWent(t *testing.T) {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		t.Skip("this system does not name its starts")
	}
	now := strings.TrimSpace(string(boot))
	for _, c := range []struct {
		name   string
		boot   string
		synced bool
		class  grid.Class
	}{
		{"the agent died alone", now, false, grid.ClassNone},
		{"the machine went down", "earlier", false, grid.ClassLost},
		{"the machine went down later", "earlier", true, grid.ClassNone},
		{"an older agent", "", false, grid.ClassNone},
	} {
		s := newHarness(t, nil)
		r := s.sweep("t-1", 10, 1, nil)
		result := &grid.Result{Started: began, Usage: grid.Usage{Wall: wall}}
		s.spool(
			1,
			&manifest{
				Sweep: r.ID, Index: 3, Attempt: 1, Run: "n.1.1", Started: began, Result: result, Boot: c.boot,
				Synced: c.synced,
			},
			"",
		)
		_, all := s.recover(r.ID)
		if len(all) != 1 || all[0].Result.Class != c.class {
			t.Errorf("%s: got %+v, want one of class %q", c.name, all, c.class)
		}
	}
}

// TestRecoverStoresWhatATrialSaved kills an agent between the end of a program and its report,
// before and after the snapshot was stored.
func TestRecoverStoresWhatATrialSaved(t *testing.T) {
	boot, _ := os.ReadFile(bootIDFile)
	for name, c := range map[string]struct {
		class     grid.Class
		cancelled bool // the sweep
		save      bool // its trials had to save their state first
		stored    bool // everything was done except for the report
		want      int
	}{
		"it failed": {class: grid.ClassExit, want: 1}, "cancelled": {class: grid.ClassCancel, cancelled: true},
		"cancelled to be saved": {class: grid.ClassCancel, cancelled: true, save: true, want: 1},
		"stored":                {class: grid.ClassExit, stored: true, want: 7},
		"cancelled and stored":  {class: grid.ClassCancel, cancelled: true, save: true, stored: true, want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			s := newHarness(t, nil)
			r := s.sweep("t-1", 1, 1, func(r *grid.Sweep) {
				checkpoint := grid.DefaultCheckpoint()
				r.Task.Checkpoint, r.Save = &checkpoint, c.save
			})
			if c.cancelled {
				s.setState(r, grid.SweepCancelled)
			}
			id := grid.TrialID{Sweep: r.ID}
			saved, err := s.trials.attempts.checkpoints.acquire(t.Context(), id)
			if err == nil {
				err = os.MkdirAll(saved.liveDir(), 0o700)
			}
			if err == nil {
				err = saved.writeState(folderState{Attempt: 1, Base: map[bool]int{true: 7}[c.stored], Stored: c.stored})
			}
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(saved.liveDir(), "state"), "x")
			s.spool(1, &manifest{
				Sweep: r.ID, Attempt: 1, Run: "n.1.1", Started: began, Boot: strings.TrimSpace(string(boot)),
				Result: &grid.Result{Class: c.class, Started: began, Usage: grid.Usage{Wall: wall}},
			}, "")
			store, err := checkpoint.OpenStore(t.TempDir(), 1<<30, logger(t))
			if err != nil {
				t.Fatal(err)
			}
			w := s.worker(nil)
			w.cfg.Snapshots.Remote = store
			if err := w.recovery.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			all := (&outboxHarness{t: t, store: s.store}).stored(r.ID)
			if len(all) != 1 || all[0].Result.Snapshot != c.want || all[0].Result.Reason != "" {
				t.Errorf("got %+v, want one that names snapshot %d", all, c.want)
			}
			if n, _ := store.Newest(id); n != c.want%7 {
				t.Errorf("got snapshot %d stored, want %d", n, c.want%7)
			}
		})
	}
}

// TestLongAttemptsAreSynced checks that an attempt that left files of every kind is marked as
// synced if it ran long enough.
func TestLongAttemptsAreSynced(t *testing.T) {
	for took, synced := range map[time.Duration]bool{time.Second: false, time.Minute: true} {
		dir := filepath.Join(t.TempDir(), "1")
		sp, err := openSpool(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer sp.close()
		if err := os.MkdirAll(filepath.Join(sp.out, "a", "b"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(sp.out, "a", "b", "model"), "weights")
		write(t, sp.metrics, "{}")
		a := &attempt{attemptSpec: attemptSpec{task: &grid.Task{}}, spool: sp}
		if err := a.writeResult(
			&manifest{Sweep: "a-1", Run: "n.1.1"}, &grid.Result{Usage: grid.Usage{Wall: took.Microseconds()}},
		); err != nil {
			t.Fatal(err)
		}
		if got, err := readManifest(filepath.Join(dir, "attempt.json")); err != nil || got.Synced != synced ||
			got.Result == nil {
			t.Errorf("after %v: got %+v, %v, want synced %t", took, got, err, synced)
		}
	}
}

// TestRecoverOfASpoolThatSaysNothing recovers spools that name no attempt, one that can't be read,
// and one of a removed sweep.
func TestRecoverOfASpoolThatSaysNothing(t *testing.T) {
	s := newHarness(t, nil)
	r := s.sweep("t-1", 10, 1, nil)
	dirs := []string{
		s.spool(1, nil, ""),
		s.spool(2, nil, "left over"),
		s.spool(3, &manifest{Sweep: "removed-1", Run: "n.1.3", Attempt: 1}, "x"),
		s.spool(4, nil, ""),
		filepath.Join(s.dir, "spool", "5"),
	}
	write(t, filepath.Join(dirs[3], "attempt.json"), `{"sweep":"t-1","ind`)
	if err := os.Mkdir(dirs[4], 0o700); err != nil {
		t.Fatal(err)
	}
	living := s.spool(6, &manifest{Sweep: r.ID, Index: 1, Attempt: 1, Run: "n.1.6", Started: began}, "")
	w, all := s.recover(r.ID)
	if len(all) != 1 || all[0].Run != "n.1.6" {
		t.Errorf("events: got %+v, want the one of the spool that names an attempt", all)
	}
	for _, dir := range append(dirs, living) {
		assertRemoved(t, dir)
	}
	if sp := w.trials.attempts.spools.mustTake(t); filepath.Base(sp.dir) != "7" {
		t.Errorf("next spool: got %s, want a name that was not there before", filepath.Base(sp.dir))
	} else {
		w.trials.attempts.spools.release(sp, true)
	}
}

// TestRunsAreNeverNamedTwice restarts repeatedly, and also with a damaged file.
func TestRunsAreNeverNamedTwice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "incarnation")
	seen := map[string]bool{}
	for i := range 50 {
		if i == 25 {
			write(t, file, "\x00\x00")
		}
		r, err := newRunNames("n", file)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if name := r.next(); seen[name] {
				t.Fatalf("start %d: run %s was there before", i, name)
			} else {
				seen[name] = true
			}
		}
	}
}

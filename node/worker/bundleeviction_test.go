package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/node/durable"
	"mlfnode/node/executor"
	"mlfnode/projects"
)

func TestTidy(t *testing.T) {
	now := time.Now()
	old := now.Add(-maxUnusedAge - time.Hour)
	for _, tt := range []struct {
		name, boot string
		want       []string
	}{
		{"same boot", "b1", []string{"bundles/new", "cache", "setups/new", "setups/new.log", "setups/new.ok"}},
		{"another boot", "b2", []string{"cache", "setups/new", "setups/new.log", "setups/new.ok"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			b := newBundles(dir, nil, nil, 1<<40)
			tidy := func(boot string) error { return errors.Join(removeUnsynced(dir, boot), b.evict(now)) }
			if err := tidy("b1"); err != nil {
				t.Fatalf("on an empty folder: %v", err)
			}
			make := func(name string, used time.Time) {
				path := filepath.Join(dir, name)
				err := os.MkdirAll(filepath.Dir(path), 0o755)
				if ext := filepath.Ext(name); err == nil && ext != "" {
					err = os.WriteFile(path, nil, 0o600)
				} else if err == nil {
					err = os.MkdirAll(path, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, used, used); err != nil {
					t.Fatal(err)
				}
			}
			make("cache", old)
			for _, name := range []string{"bundles/", "setups/"} {
				make(name+"old", old)
				make(name+"new", now)
			}
			make("setups/old.ok", old)
			make("setups/old.log", now)
			make("setups/new.ok", now)
			make("setups/new.log", old)
			make("setups/torn", old) // the step failed, so there is no mark
			make("setups/"+removedPrefix+"x", now)
			if err := tidy(tt.boot); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, pattern := range []string{"bundles/*", "cache", "setups/*"} {
				found, err := filepath.Glob(filepath.Join(dir, pattern))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range found {
					rel, err := filepath.Rel(dir, path)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, rel)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("what is left (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTidyLeavesOthersFiles checks that the worker leaves alone what the node writes at the same
// time, such as the location of its cluster.
func TestTidyLeavesOthersFiles(t *testing.T) {
	dir := t.TempDir()
	part := filepath.Join(dir, durable.PartPrefix+"cluster.json-1")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(removeUnsynced(dir, "b1"), newBundles(dir, nil, nil, 0).evict(time.Now())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(part); err != nil {
		t.Errorf("got %v for a file that the node writes, want it left alone", err)
	}
}

// largeSweep creates a sweep whose project has a file of this size.
func (s *harness) largeSweep(name string, size int, task grid.Task) *grid.Sweep {
	s.t.Helper()
	dir := s.t.TempDir()
	must(s.t, os.WriteFile(filepath.Join(dir, "data"), []byte(name+strings.Repeat(" ", size-len(name))), 0o600))
	return s.submitFolder(dir, task)
}

// countCached counts the cached bundles and setups.
func (s *harness) countCached() (n int) {
	s.t.Helper()
	for _, kind := range []string{"bundles", "setups"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				n++
			}
		}
	}
	return n
}

// TestProjectsKeepToTheirLimit prepares more projects than the node may keep: the least recently
// used ones are removed, and projects that an attempt sees in place stay, including an attempt of
// an earlier agent.
func TestProjectsKeepToTheirLimit(t *testing.T) {
	s := newHarness(t, nil)
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) })
	s.trials.attempts.preparer.bundles.limit = 3 << 20
	none := func(string) error { return nil }
	prepare := func(r *grid.Sweep) *preparedProject {
		t.Helper()
		p, err := s.trials.attempts.preparer.bundles.get(t.Context(), r, "", none)
		must(t, err)
		return p
	}
	shared := prepare(s.largeSweep("shared", 1<<20, grid.Task{Share: []string{"data"}, Setup: []string{"step"}}))
	now := time.Now()
	var last *grid.Sweep
	for i := range 8 {
		last = s.largeSweep(fmt.Sprint(i), 1<<20, grid.Task{})
		p := prepare(last)
		s.trials.attempts.preparer.bundles.unpin(p.folders)
		touchFolders(p.folders, now.Add(time.Duration(i+1)*time.Second))
	}
	all := s.useAllFolders(t)
	if got := s.countCached(); got != 10 { // including the bundle of the shared one
		t.Errorf("while an attempt of an earlier agent runs: got %d folders, want all 10", got)
	}
	s.trials.attempts.preparer.bundles.unpin(all)
	must(t, s.trials.attempts.preparer.bundles.evict(now))
	if got := s.countCached(); got != 10 {
		t.Errorf("over the limit, all used lately: got %d folders, want all 10", got)
	}
	must(t, s.trials.attempts.preparer.bundles.evict(now.Add(2*recentUse)))
	if got := s.countCached(); got != 3 {
		t.Errorf("over the limit: got %d folders, want 3", got)
	}
	for name, p := range map[string]*preparedProject{"that is in use": shared, "that was used last": prepare(last)} {
		if !p.foldersExist() {
			t.Errorf("the project %s is gone", name)
		}
	}
	if got := len(s.trials.attempts.preparer.bundles.prepared); got != 3 {
		t.Errorf("the worker remembers %d projects, want 3", got)
	}
	s.trials.attempts.preparer.bundles.unpin(shared.folders)
	must(t, s.trials.attempts.preparer.bundles.evict(now.Add(maxUnusedAge+time.Hour)))
	if got := s.countCached(); got != 1 || len(s.trials.attempts.preparer.bundles.prepared) != 1 ||
		len(s.trials.attempts.preparer.bundles.locks) != 0 {
		t.Errorf(
			"after a long time: got %d folders, %d projects, %d locks, want the one in use", got,
			len(s.trials.attempts.preparer.bundles.prepared), len(s.trials.attempts.preparer.bundles.locks),
		)
	}
}

// useAllFolders runs an attempt of an earlier agent while the worker evicts folders.
func (s *harness) useAllFolders(t *testing.T) []string {
	t.Helper()
	all := s.trials.attempts.preparer.bundles.pinAll()
	must(t, s.trials.attempts.preparer.bundles.evict(time.Now().Add(2*maxUnusedAge)))
	return all
}

// TestRemovedProjectIsUnpackedAgain removes unpacked projects and setups, whole and in part, while
// a worker is running: its next attempts find all files.
func TestRemovedProjectIsUnpackedAgain(t *testing.T) {
	for name, task := range map[string]grid.Task{
		"bundle": {}, "setup": {Setup: []string{"true"}}, "inputs": {Setup: []string{"true"}, Inputs: []string{"data"}},
		"share": {Share: []string{"data"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
				if a.Argv[0] == "true" {
					return executor.Outcome{}
				}
				b, err := os.ReadFile(filepath.Join(a.Dir, "data"))
				if err != nil || len(b) != 1000 {
					return executor.Refused(grid.ClassExit, fmt.Sprintf("the program finds %d bytes, %v", len(b), err))
				}
				return executor.Outcome{}
			})
			t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) })
			bundle := s.largeSweep(name, 1000, task).Bundle
			r := s.sweep("p-1", 4, 1, func(r *grid.Sweep) {
				command := r.Task.Command
				r.Bundle, r.Task = bundle, task
				r.Task.Command = command
			})
			s.run()
			run := func(i int64) *grid.Result {
				s.lease(r, i, i+1)
				all := s.finished(r.ID, int(i)+1)
				return all[len(all)-1].Result
			}
			if result := run(0); result.Class != grid.ClassNone {
				t.Fatalf("at first: got %q, %s", result.Class, result.Reason)
			}
			must(
				t, errors.Join(projects.RemoveTree(filepath.Join(s.dir, "bundles")),
					projects.RemoveTree(filepath.Join(s.dir, "setups"))),
			)
			if result := run(1); result.Class != grid.ClassNone {
				t.Errorf("without the folders: got %q, %s", result.Class, result.Reason)
			}
			eventually(t, "no folder is in use any more", func() bool {
				s.trials.attempts.preparer.bundles.mu.Lock()
				defer s.trials.attempts.preparer.bundles.mu.Unlock()
				return len(s.trials.attempts.preparer.bundles.useCounts) == 0
			})
			if name == "share" { // nothing reads, for a trial, what the trial sees in place
				return
			}
			must(t, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Name() == "data" {
					err = errors.Join(os.Chmod(filepath.Dir(path), 0o700), os.Remove(path))
				}
				return err
			}))
			if result := run(2); result.Class != grid.ClassNode {
				t.Errorf("without a file: got %q, %s", result.Class, result.Reason)
			}
			if result := run(3); result.Class != grid.ClassNone {
				t.Errorf("after the failure for a missing file: got %q, %s", result.Class, result.Reason)
			}
		})
	}
}

// TestProjectsOfActiveSweepsStay prepares more than may be kept for a sweep whose trials may start:
// each trial would have to prepare it again. On a disk that is nearly full, projects that other
// sweeps have used recently are removed.
func TestProjectsOfActiveSweepsStay(t *testing.T) {
	dir := gridtest.SmallDisk(t, "64m", unix.MNT_DETACH)
	s := newHarness(t, nil)
	b := newBundles(dir, s.trials.attempts.preparer.bundles.cache, s.trials.attempts.preparer.bundles.fetch, 1<<20)
	active := map[grid.SweepID]bool{}
	b.isActive = func(id grid.SweepID) bool { return active[id] }
	setups := 0
	prepare := func(r *grid.Sweep) *preparedProject {
		t.Helper()
		p, err := b.get(t.Context(), r, "", func(dir string) error {
			setups++
			return os.WriteFile(filepath.Join(dir, "made"), make([]byte, 4<<20), 0o600)
		})
		must(t, err)
		b.unpin(p.folders)
		return p
	}
	sweep := func(id grid.SweepID) *grid.Sweep {
		r := s.largeSweep(string(id), 1000, grid.Task{Setup: []string{"step " + string(id)}})
		r.ID = id
		return r
	}
	first, second := sweep("a-1"), sweep("b-1")
	active[first.ID] = true
	prepare(first)
	p := prepare(second)
	now := time.Now()
	for _, at := range []time.Duration{0, recentUse / 2} {
		must(t, b.evict(now.Add(at)))
		prepare(first)
		prepare(second)
	}
	if setups != 2 {
		t.Errorf("over the limit: got %d setup steps, want one for each sweep", setups)
	}
	must(t, b.evict(now.Add(2*recentUse)))
	if prepare(first); setups != 2 || p.foldersExist() {
		t.Errorf(
			"later: got %d setup steps, the setup of the sweep that is not active is there: %t", setups,
			p.foldersExist(),
		)
	}
	p = prepare(second)
	empty := fillDisk(t, dir)
	must(t, b.evict(time.Now().Add(time.Second)))
	empty()
	if prepare(first); setups != 3 || p.foldersExist() {
		t.Errorf(
			"on a full disk: got %d setup steps, the setup of the sweep that is not active is there: %t", setups,
			p.foldersExist(),
		)
	}
	active[first.ID] = false
	must(t, b.evict(time.Now().Add(2*recentUse)))
	if prepare(first); setups != 4 {
		t.Errorf("after its end: got %d setup steps, want a further one", setups)
	}
	var sizeless diskUsage
	if got := sizeless.defaultCacheLimit(); got < 1<<40 {
		t.Errorf("a disk of unknown size: got a limit of %d bytes", got)
	}
}

// TestTidyGoesOn evicts folders, some of which can't be moved or removed: the others are removed
// all the same, and all errors are returned.
func TestTidyGoesOn(t *testing.T) {
	dir := t.TempDir()
	b := newBundles(dir, nil, nil, 1<<40)
	old := time.Now().Add(-2 * maxUnusedAge)
	unmovable := strings.Repeat("a", 250) // with the prefix, its name is too long
	for _, name := range []string{
		"bundles/" + unmovable, "bundles/b", "setups/c", "setups/" + removedPrefix + "busy/mount",
	} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		must(t, os.Chtimes(filepath.Join(dir, name), old, old))
	}
	busy := filepath.Join(dir, "setups", removedPrefix+"busy", "mount")
	if err := unix.Mount(busy, busy, "", unix.MS_BIND, ""); err != nil {
		gridtest.Missing(t, "needs to mount a folder, which takes root", err)
	}
	defer func() { must(t, unix.Unmount(busy, unix.MNT_DETACH)) }()
	err := b.evict(time.Now())
	if !errors.Is(err, unix.ENAMETOOLONG) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v, want that one folder is busy and the name of one is too long", err)
	}
	for name, want := range map[string]bool{"bundles/" + unmovable: true, "bundles/b": false, "setups/c": false} {
		if got := exists(filepath.Join(dir, name)); got != want {
			t.Errorf("%s is there: got %t, want %t", name, got, want)
		}
	}
}

// TestProjectInUseStays removes a file of a project that attempts see in place: as long as one of
// them runs, the folder is not rebuilt.
func TestProjectInUseStays(t *testing.T) {
	s := newHarness(t, nil)
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) })
	setups := 0
	r := s.largeSweep("p", 1000, grid.Task{Share: []string{"data"}, Setup: []string{"step"}})
	prepare := func() *preparedProject {
		t.Helper()
		p, err := s.trials.attempts.preparer.bundles.get(
			t.Context(), r, "", func(string) error { setups++; return nil },
		)
		must(t, err)
		return p
	}
	running, failed := prepare(), prepare() // the same one
	key := setupKey(r.Bundle, &r.Task, "")
	s.trials.attempts.preparer.bundles.invalidate(key, r.Bundle, failed, true)
	if again := prepare(); setups != 1 || again != running {
		t.Errorf("while another attempt runs in it: got %d setup steps, want 1", setups)
	}
	for range 2 {
		s.trials.attempts.preparer.bundles.unpin(running.folders)
	}
	all := s.trials.attempts.preparer.bundles.pinAll()
	s.trials.attempts.preparer.bundles.invalidate(key, r.Bundle, failed, true)
	s.trials.attempts.preparer.bundles.unpin(all)
	if prepare(); setups != 1 {
		t.Errorf("while an attempt of an earlier agent runs: got %d setup steps, want 1", setups)
	}
	s.trials.attempts.preparer.bundles.unpin(running.folders)
	s.trials.attempts.preparer.bundles.invalidate(key, r.Bundle, failed, true)
	if prepare(); setups != 2 {
		t.Errorf("after the other has ended: got %d setup steps, want 2", setups)
	}
}

// TestLeftProcessKeepsItsFolders ends an attempt while a process of another user still runs in its
// folders: they stay, and the next start reports nothing about them.
func TestLeftProcessKeepsItsFolders(t *testing.T) {
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		out := succeeded()
		out.Foreign = "4711 (sleep, user root)"
		return out
	})
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) })
	shared := s.largeSweep("shared", 1000, grid.Task{Share: []string{"data"}})
	r := s.sweep("p-1", 1, 1, func(r *grid.Sweep) { r.Bundle, r.Task.Share = shared.Bundle, shared.Task.Share })
	s.run()
	s.lease(r, 0, 1)
	s.finished(r.ID, 1)
	spool := filepath.Join(s.dir, "spool", "1")
	eventually(t, "the spool names no attempt", func() bool {
		m, err := readManifest(filepath.Join(spool, "attempt.json"))
		return err == nil && m == nil && len(s.trials.attempts.spools.taken) == 0
	})
	s.stop()
	must(t, s.trials.attempts.preparer.bundles.evict(time.Now().Add(2*maxUnusedAge)))
	for name, dir := range map[string]string{
		"attempt": filepath.Join(spool, "work", "data"), "setup": filepath.Join(s.dir, "setups", "*", "data"),
	} {
		if found, _ := filepath.Glob(dir); len(found) != 1 {
			t.Errorf("the folder of the %s is gone", name)
		}
	}
	must(t, s.worker(nil).recovery.run(t.Context()))
	s.finished(r.ID, 1)
	if exists(spool) {
		t.Error("the next start has left the spool")
	}
}

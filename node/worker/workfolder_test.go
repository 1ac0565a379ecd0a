package worker

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/projects"
)

// describeTree describes the content of a folder: mode, time and content of each file, or the
// target of a link.
func describeTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		switch {
		case info.Mode().Type() == fs.ModeSymlink:
			if what, err = os.Readlink(path); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("%d bytes %.20q", len(text), text)
		}
		name, err := filepath.Rel(dir, path)
		all[name] = fmt.Sprintf("%v %v %s", info.Mode(), info.ModTime().UnixNano(), what)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sample creates a project with a bit of everything.
func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"main.py": 0o644, "run.sh": 0o755, "key": 0o600, "odd": 0o461, "locked/a": 0o444, "data/x": 0o640,
		"data/sub/y": 0o644,
	} {
		at := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		must(t, os.WriteFile(at, []byte("content of "+name), 0o600))
		must(t, os.Chmod(at, mode))
	}
	must(t, os.WriteFile(filepath.Join(dir, "big.ckpt"), bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o700))
	must(t, os.Symlink("main.py", filepath.Join(dir, "link")))
	must(t, os.Chmod(filepath.Join(dir, "locked"), 0o555))
	at := time.Date(2003, 4, 5, 6, 7, 8, 123456789, time.UTC)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at = at.Add(1234567891)
		return projects.SetTime(path, at)
	}))
	t.Cleanup(func() { must(t, projects.RemoveTree(dir)) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// submitFolder creates the record of a sweep of this folder, whose bundle is stored.
func (s *harness) submitFolder(dir string, task grid.Task) *grid.Sweep {
	s.t.Helper()
	var b bytes.Buffer
	digest, err := projects.Pack(dir, &b, projects.DefaultBundleLimit)
	must(s.t, err)
	must(s.t, s.store.Bundles.Put(s.t.Context(), digest, &b))
	return &grid.Sweep{ID: "p-1", Bundle: digest, Task: task}
}

// folder returns the folder that an attempt of the sweep finds.
func (s *harness) folder(r *grid.Sweep, setup func(dir string) error) string {
	s.t.Helper()
	p, err := s.trials.attempts.preparer.bundles.get(s.t.Context(), r, "", setup)
	must(s.t, err)
	dir := s.t.TempDir()
	must(s.t, fillFolder(dir, p.entries))
	s.t.Cleanup(func() { must(s.t, projects.RemoveTree(dir)) })
	return dir
}

// modifyFiles changes everything that a program can change in its folder, and returns how much that
// was.
func modifyFiles(t *testing.T, dir string) (changed int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			changed++
			must(t, os.Chmod(path, 0o700))
			return os.WriteFile(filepath.Join(path, "new"), []byte("new"), 0o600)
		}
		if d.Type().IsRegular() {
			changed++
			must(t, os.Chmod(path, 0o600))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteString("spoiled")
			must(t, err)
			return f.Close()
		}
		return nil
	}))
	return changed
}

// TestAttemptsGetCopies checks that no attempt sees what another program does to its folder: to
// large files, read-only ones, files that a setup step made, and files deep in folders that it
// made.
func TestAttemptsGetCopies(t *testing.T) {
	s := newHarness(t, nil)
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) }) // it holds read-only folders
	project := sample(t)
	steps := 0
	setup := func(dir string) error {
		steps++
		for name, mode := range map[string]os.FileMode{
			"result/log": 0o664, "env/lib/deep/er/module": 0o755, "made": 0o604,
		} {
			at := filepath.Join(dir, name)
			must(t, os.MkdirAll(filepath.Dir(at), 0o755))
			must(t, os.WriteFile(at, []byte(strings.Repeat(name, 1000)), 0o600))
			must(t, os.Chmod(at, mode))
		}
		must(t, os.Symlink("/usr/bin/env", filepath.Join(dir, "env", "link")))
		must(t, os.Remove(filepath.Join(dir, "data", "x")))
		return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)
	}
	for name, task := range map[string]grid.Task{"plain": {}, "setup": {Setup: []string{"step"}}} {
		t.Run(name, func(t *testing.T) {
			r := s.submitFolder(project, task)
			first := s.folder(r, setup)
			want := describeTree(t, first)
			if name == "plain" {
				if diff := cmp.Diff(describeTree(t, project), want); diff != "" {
					t.Errorf("the attempt's folder (-project +attempt):\n%s", diff)
				}
			}
			if n := modifyFiles(t, first); n < 14 {
				t.Fatalf("only %d files and folders were changed", n)
			}
			if diff := cmp.Diff(want, describeTree(t, s.folder(r, setup))); diff != "" {
				t.Errorf("what the next attempt finds (-want +got):\n%s", diff)
			}
			next := s.worker(nil)
			again := harness{Worker: next, t: t}
			if diff := cmp.Diff(want, describeTree(t, again.folder(r, setup))); diff != "" {
				t.Errorf("what an attempt finds after a new start (-want +got):\n%s", diff)
			}
			if now := describeTree(t, project); len(now) != 13 {
				t.Errorf("the project itself was changed: %v", now)
			}
		})
	}
	if steps != 1 {
		t.Errorf("the setup step ran %d times, want once", steps)
	}
}

// TestLinksOfSetupStayInside checks that absolute links that a setup step makes into its own folder
// lead each attempt to its own copy.
func TestLinksOfSetupStayInside(t *testing.T) {
	s := newHarness(t, nil)
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) })
	setup := func(dir string) error {
		must(t, os.MkdirAll(filepath.Join(dir, "env/lib/deep"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "env/lib/file"), []byte("as it was"), 0o644))
		real, err := filepath.EvalSymlinks(dir)
		must(t, err)
		for name, to := range map[string]string{
			"all": filepath.Join(dir, "env"), "env/lib/deep/one": filepath.Join(dir, "env/lib/file"), "self": dir,
			"real":    filepath.Join(real, "env"),
			"unclean": dir + "/./env//lib/../", "away": "/usr/bin/env", "gone": filepath.Join(dir, "none"),
			"beside": dir + "x",
		} {
			must(t, os.Symlink(to, filepath.Join(dir, name)))
		}
		return nil
	}
	r := s.submitFolder(sample(t), grid.Task{Setup: []string{"step"}})
	for i := range 2 {
		folder := s.folder(r, setup)
		for _, name := range []string{
			"all/lib/file", "env/lib/deep/one", "self/env/lib/file", "real/lib/file", "unclean/lib/file",
		} {
			text, err := os.ReadFile(filepath.Join(folder, name))
			must(t, err)
			if i == 1 && string(text) != "as it was" {
				t.Errorf("%s: got %q, want what the setup step wrote", name, text)
			}
		}
		for _, name := range []string{
			"all/lib/file", "env/lib/deep/one", "self/env/lib/file", "real/lib/file", "unclean/lib/file",
		} {
			must(t, os.WriteFile(filepath.Join(folder, name), []byte("changed"), 0o644))
		}
		for name, want := range map[string]string{"away": "/usr/bin/env", "gone": "none"} {
			if got, err := os.Readlink(filepath.Join(folder, name)); err != nil || got != want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
		if got, err := os.Readlink(filepath.Join(folder, "beside")); err != nil || !filepath.IsAbs(got) {
			t.Errorf("beside: got %q, %v, want the link as it is", got, err)
		}
	}
}

// TestShareInPlace checks that what the project shares is visible in place and has no write
// permission, and that everything else is copied.
func TestShareInPlace(t *testing.T) {
	s := newHarness(t, nil)
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) }) // it holds read-only folders
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "a"), []byte("outside"), 0o644))
	project := sample(t)
	setup := func(dir string) error {
		must(t, os.MkdirAll(filepath.Join(dir, "env", "lib"), 0o755))
		return os.WriteFile(filepath.Join(dir, "env", "lib", "module"), []byte("m"), 0o644)
	}
	for name, setUp := range map[string][]string{"bundle": nil, "setup": {"step"}} {
		t.Run(name, func(t *testing.T) {
			r := s.submitFolder(project, grid.Task{Setup: setUp, Share: []string{"data/**", "*.ckpt", "env", outside},
				Links: []grid.Link{{To: outside}, {Path: "far/store", To: outside}}})
			dir := s.folder(r, setup)
			linked := []string{"data", "big.ckpt"}
			if setUp != nil {
				linked = append(linked, "env")
			}
			for _, name := range linked {
				to, err := os.Readlink(filepath.Join(dir, name))
				must(t, err)
				must(t, filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
					must(t, err)
					info, err := d.Info()
					must(t, err)
					if info.Mode()&0o222 != 0 {
						t.Errorf("%s has mode %v, want no write permission", path, info.Mode())
					}
					return nil
				}))
			}
			for name, want := range map[string]string{
				"data/sub/y": "content of data/sub/y", "far/store/a": "outside", "key": "content of key",
			} {
				got, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil || string(got) != want {
					t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
				}
			}
			if got, want := describeTree(t, dir)["key"], describeTree(t, project)["key"]; got != want {
				t.Errorf("what is not shared: got %s, want %s", got, want)
			}
			// A sweep with the same files that shares nothing gets its own.
			plain := s.folder(s.submitFolder(project, grid.Task{Setup: setUp}), setup)
			if got, want := describeTree(t, plain)["data/x"], describeTree(t, project)["data/x"]; got != want {
				t.Errorf("without sharing: got %s, want %s", got, want)
			}
		})
	}
	r := s.submitFolder(project, grid.Task{Links: []grid.Link{{To: "/no/such/store"}}})
	_, err := s.trials.attempts.preparer.bundles.get(t.Context(), r, "", setup)
	if err == nil || !strings.Contains(err.Error(), "the project shares /no/such/store, which this node can't read") {
		t.Errorf("a path that is not on this node: got %v", err)
	}
	r.Task.Links = []grid.Link{{Path: "../evil", To: outside}}
	if _, err := s.trials.attempts.preparer.bundles.get(t.Context(), r, "", setup); err == nil {
		t.Error("a link that leaves the folder was taken")
	}
}

// TestTouchedProjectKeepsSetup checks that a setup is not repeated for a new checkout of the same
// files, and that what it built stays newer than its sources; without a setup an attempt sees the
// new times.
func TestTouchedProjectKeepsSetup(t *testing.T) {
	s := newHarness(t, nil)
	t.Cleanup(func() { must(t, projects.RemoveTree(s.dir)) }) // it holds read-only folders
	project := sample(t)
	steps := 0
	setup := func(dir string) error {
		steps++
		return os.WriteFile(filepath.Join(dir, "built"), []byte("from main.py"), 0o755)
	}
	task := grid.Task{Setup: []string{"make"}}
	before := describeTree(t, s.folder(s.submitFolder(project, task), setup))
	must(t, os.Chtimes(filepath.Join(project, "main.py"), time.Time{}, time.Now().Add(time.Hour)))
	if diff := cmp.Diff(before, describeTree(t, s.folder(s.submitFolder(project, task), setup))); diff != "" ||
		steps != 1 {
		t.Errorf("after a touch: the setup ran %d times, want once; the folder (-before +after):\n%s", steps, diff)
	}
	if got, want := describeTree(
		t, s.folder(s.submitFolder(project, grid.Task{}), setup),
	)["main.py"], describeTree(t, project)["main.py"]; got != want {
		t.Errorf("without a setup: got %s, want %s", got, want)
	}
	must(t, os.Chmod(filepath.Join(project, "main.py"), 0o600))
	s.folder(s.submitFolder(project, task), setup)
	if steps != 2 {
		t.Errorf("after another change: the setup ran %d times, want again", steps)
	}
}

func BenchmarkFillFolder(b *testing.B) {
	dir := b.TempDir()
	for i := range 2000 {
		at := filepath.Join(dir, fmt.Sprint("d", i/100), fmt.Sprint("f", i))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(at, bytes.Repeat([]byte("x"), 3000), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	entries, err := listFolder(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		to := b.TempDir()
		b.StartTimer()
		if err := fillFolder(to, entries); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2000, "µs/file")
}

// TestPreparationOutlivesWhoBeganIt stops the attempt that prepares a project for several others,
// while it downloads or runs the setup step: another one continues immediately, and none fails
// because of it.
func TestPreparationOutlivesWhoBeganIt(t *testing.T) {
	for name, failed := range map[string]error{
		"while it downloads": fmt.Errorf("the project's bundle could not be unpacked: %w", executor.ErrLost),
		"in its setup step":  &setupError{class: grid.ClassHalt, reason: "stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newHarness(t, nil)
			r := s.sweep("t-1", 1, 1, func(r *grid.Sweep) { r.Task.Setup = []string{"setup"} })
			ctx, stop := context.WithCancelCause(t.Context())
			began := make(chan struct{})
			first := make(chan error, 1)
			go func() {
				_, err := s.trials.attempts.preparer.bundles.get(ctx, r, "", func(string) error {
					close(began)
					<-ctx.Done()
					return failed
				})
				first <- err
			}()
			<-began
			others := make(chan error, 3)
			var ran atomic.Int32
			for range cap(others) {
				go func() {
					_, err := s.trials.attempts.preparer.bundles.get(
						t.Context(), r, "", func(string) error { ran.Add(1); return nil },
					)
					others <- err
				}()
			}
			<-time.After(100 * time.Millisecond) // most of them are waiting by then
			stop(executor.ErrLost)
			if err := receive(t, "the first attempt", first); err == nil {
				t.Error("the stopped attempt goes on")
			}
			for range cap(others) {
				if err := receive(t, "the others", others); err != nil {
					t.Errorf("another attempt failed: %v", err)
				}
			}
			if n := ran.Load(); n != 1 {
				t.Errorf("the setup step ran %d times, want once", n)
			}
		})
	}
}

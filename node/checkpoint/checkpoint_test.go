package checkpoint_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
)

var trial = grid.TrialID{Sweep: "s-1", Index: 7}

func open(t *testing.T, dir string, limit int64) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.OpenStore(dir, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write makes files below dir; a content that ends in / is a folder, one that begins with -> a
// link.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch to, link := strings.CutPrefix(content, "->"); {
		case content == "/":
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(to, path)
		case err == nil:
			err = os.WriteFile(path, []byte(content), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree describes a folder.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = fmt.Sprintf("%s %s", b, info.ModTime())
		} else if info.Mode().Type() == fs.ModeSymlink {
			text, _ = os.Readlink(path)
		}
		all = append(all, fmt.Sprintf("%s %s %s", rel, info.Mode(), text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func scan(t *testing.T, dir string) []checkpoint.File {
	t.Helper()
	files, err := checkpoint.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// save stores a folder as a snapshot of an attempt.
func save(t *testing.T, s checkpoint.Remote, dir string, attempt, resumed int) (int, error) {
	t.Helper()
	files := scan(t, dir)
	if err := checkpoint.HashFiles(t.Context(), dir, files, nil); err != nil {
		t.Fatal(err)
	}
	return checkpoint.Send(
		t.Context(), s, trial, &checkpoint.Snapshot{Attempt: attempt, Resumed: resumed, Files: files}, dir,
		checkpoint.NewLimiter(0),
	)
}

func mustSave(t *testing.T, s checkpoint.Remote, dir string, attempt, resumed int) int {
	t.Helper()
	n, err := save(t, s, dir, attempt, resumed)
	if err != nil || n == 0 {
		t.Fatalf("got snapshot %d, %v", n, err)
	}
	return n
}

func restore(t *testing.T, s checkpoint.Remote, number int, dir string) error {
	t.Helper()
	return checkpoint.Restore(t.Context(), s, trial, number, dir, checkpoint.NewLimiter(0))
}

// TestSnapshotTravels has a folder with all that may be in one arrive elsewhere as it was, also
// over a folder with older content, and also after the store was opened again.
func TestSnapshotTravels(t *testing.T) {
	dir, store := t.TempDir(), t.TempDir()
	live := filepath.Join(dir, "live")
	write(t, live, map[string]string{
		"model.npz": strings.Repeat("weights", 50_000), "step": "17", "empty": "", "same": "17", "deep/er/state": "x",
		"folder": "/",
		"latest": "->deep/er/state", "absolute": "->" + filepath.Join(live, "step"), "dangling": "->/no/such/file",
		"ünï côde": "y", "-rf": "z",
	})
	if err := os.Chmod(filepath.Join(live, "deep/er"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(live, "deep/er"), 0o755) })
	old := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	if err := os.Chtimes(filepath.Join(live, "step"), old, old); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(tree(t, live), filepath.Join(live, "step"), "step")
	n := mustSave(t, open(t, store, 1<<30), live, 1, 0)
	again := open(t, store, 1<<30)
	if number, bad := again.Newest(trial); number != n || bad != 0 {
		t.Errorf("the store opened again has snapshot %d, bad %d, want %d, 0", number, bad, n)
	}
	for name, before := range map[string]map[string]string{
		"empty": nil,
		"older": {"step": "3", "model.npz": strings.Repeat("weights", 50_000),
			"gone": "x", "deep/er/more": "x"},
		"a link in a folder's place": {"deep": "->/etc"},
	} {
		to := filepath.Join(t.TempDir(), "live")
		write(t, to, before)
		if err := restore(t, again, n, to); err != nil {
			t.Errorf("over %s: %v", name, err)
		}
		if got := tree(t, to); got != want {
			t.Errorf("over %s: got\n%s\nwant\n%s", name, got, want)
		}
		left, _ := os.ReadDir(filepath.Dir(to))
		if len(left) != 1 {
			t.Errorf("over %s: got %v beside the folder, want nothing", name, left)
		}
	}
}

// TestOnlyNewContentsTravel counts what is sent when few of many files have changed.
func TestOnlyNewContentsTravel(t *testing.T) {
	live := t.TempDir()
	for i := range 20 {
		write(t, live, map[string]string{fmt.Sprintf("f%d", i): strings.Repeat(fmt.Sprint(i), 1000)})
	}
	c := &counting{Store: open(t, t.TempDir(), 1<<30)}
	mustSave(t, c, live, 1, 0)
	if c.puts != 20 {
		t.Errorf("got %d contents sent first, want 20", c.puts)
	}
	write(t, live, map[string]string{"f3": "new", "f4": "new", "g": strings.Repeat("5", 1000)})
	n := mustSave(t, c, live, 2, 1)
	if c.puts != 21 {
		t.Errorf("got %d contents sent in all, want 21: one is new, one is a copy", c.puts)
	}
	if err := restore(t, c, n, live); err != nil || c.opens > 0 {
		t.Errorf("over the folder itself: got %v and %d contents fetched, want none", err, c.opens)
	}
}

type counting struct {
	*checkpoint.Store
	puts, opens int
}

func (c *counting) Put(ctx context.Context, id grid.TrialID, m checkpoint.Missing, r io.Reader) error {
	c.puts++
	return c.Store.Put(ctx, id, m, r)
}

func (c *counting) Open(ctx context.Context, id grid.TrialID, hash string) (io.ReadCloser, error) {
	c.opens++
	return c.Store.Open(ctx, id, hash)
}

// TestCutUploadGoesOn has an upload end in the middle: nothing is stored, and the next try sends
// the rest only.
func TestCutUploadGoesOn(t *testing.T) {
	live, dir := t.TempDir(), t.TempDir()
	content := strings.Repeat("0123456789", 100_000)
	write(t, live, map[string]string{"big": content})
	s := open(t, dir, 1<<30)
	cut := &cutting{Store: s, at: 300_000}
	if n, err := save(t, cut, live, 1, 0); err == nil {
		t.Fatalf("got snapshot %d of an upload that was cut", n)
	}
	if n, _ := s.Newest(trial); n != 0 {
		t.Errorf("got snapshot %d, want none", n)
	}
	again := &cutting{Store: open(t, dir, 1<<30), at: 1 << 30} // also over a restart of the master
	mustSave(t, again, live, 1, 0)
	if again.from != 300_000 {
		t.Errorf("the second upload began at %d, want 300000", again.from)
	}
	to := filepath.Join(t.TempDir(), "live")
	if err := restore(t, again, 1, to); err != nil || tree(t, to) != tree(t, live) {
		t.Errorf("got %v", err)
	}
	// An upload that is given up leaves nothing behind once another snapshot is stored.
	write(t, live, map[string]string{"big": content + "x"})
	if _, err := save(t, &cutting{Store: again.Store, at: 1000}, live, 1, 0); err == nil {
		t.Error("an upload that was cut was stored")
	}
	write(t, live, map[string]string{"big": "small"})
	mustSave(t, again, live, 1, 0)
	if bytes, _ := again.Usage(); bytes != int64(len("small")+len(content)) {
		t.Errorf("got %d bytes kept, want those of the two newest snapshots", bytes)
	}
	if bytes, _ := open(t, dir, 1<<30).Usage(); bytes != int64(len("small")+len(content)) {
		t.Errorf("got %d bytes on the disk", bytes)
	}
}

type cutting struct {
	*checkpoint.Store
	at, from int64
}

func (c *cutting) Put(ctx context.Context, id grid.TrialID, m checkpoint.Missing, r io.Reader) error {
	c.from = m.Have
	if m.Size > c.at {
		r = io.MultiReader(io.LimitReader(r, c.at), errReader{})
	}
	return c.Store.Put(ctx, id, m, r)
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("cut") }

// TestGenerations holds which snapshots are kept: the newest, and the one that its attempt resumed
// from, or else the one before.
func TestGenerations(t *testing.T) {
	live, dir := t.TempDir(), t.TempDir()
	s := open(t, dir, 1<<30)
	kept := func() (all []int) {
		for n := range 20 {
			if _, err := s.Load(t.Context(), trial, n); err == nil {
				all = append(all, n)
			}
		}
		return all
	}
	steps := []struct {
		attempt, resumed int
		want             []int
	}{
		{1, 0, []int{1}}, {1, 0, []int{1, 2}}, // 2 may be torn by what ended the attempt
		{2, 2, []int{2, 3}}, {2, 2, []int{2, 4}}, // 2 can be read: an attempt has resumed from it
		{3, 4, []int{4, 5}}, {4, 0, []int{5, 6}}, // whatever attempt 4 began from
	}
	for i, step := range steps {
		write(t, live, map[string]string{"step": fmt.Sprint(i), "fixed": "x"})
		if n := mustSave(t, s, live, step.attempt, step.resumed); n != i+1 {
			t.Errorf("step %d: got number %d", i, n)
		}
		if got := kept(); !slices.Equal(got, step.want) {
			t.Errorf("step %d: got %v kept, want %v", i, got, step.want)
		}
	}
	files, _ := os.ReadDir(filepath.Join(dir, "s-1", "7", "files"))
	if len(files) != 3 {
		t.Errorf("got %d contents kept, want 3: two steps and what is fixed", len(files))
	}
	// Attempt 5 could not read 6: 5 is what is left. Attempt 6 could not read that either.
	for range 2 {
		if err := s.Reject(trial, 5, 6); err != nil {
			t.Fatal(err)
		}
	}
	if n, bad := s.Newest(trial); n != 5 || bad != 5 {
		t.Errorf("got %d, bad %d; want 5, 5", n, bad)
	}
	if err := s.Reject(trial, 6, 5); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 1<<30)
	if n, bad := s.Newest(trial); n != 0 || bad != 6 {
		t.Errorf("got %d, bad %d; want 0, 6", n, bad)
	}
	if n := mustSave(t, s, live, 7, 0); n != 7 {
		t.Errorf("got number %d, want 7: a number is never used twice", n)
	}
	if err := s.Discard(trial); err != nil {
		t.Fatal(err)
	}
	if err := s.PurgeRemoved(); err != nil {
		t.Fatal(err)
	}
	if bytes, _ := s.Usage(); bytes != 0 || len(s.Sweeps()) != 0 || tree(t, dir) != ".removed drwx------ " {
		t.Errorf("got %d bytes in %v, want nothing left:\n%s", bytes, s.Sweeps(), tree(t, dir))
	}
}

// TestStoreHasABound refuses what goes over the limit, and counts alike before and after it is
// opened again.
func TestStoreHasABound(t *testing.T) {
	live, dir := t.TempDir(), t.TempDir()
	s := open(t, dir, 1000)
	write(t, live, map[string]string{"a": strings.Repeat("a", 600)})
	mustSave(t, s, live, 1, 0)
	write(t, live, map[string]string{"a": strings.Repeat("b", 600)})
	if _, err := save(t, s, live, 2, 1); !errors.Is(err, checkpoint.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if n, _ := s.Newest(trial); n != 1 {
		t.Errorf("got snapshot %d, want the old one", n)
	}
	before, _ := s.Usage()
	if after, _ := open(t, dir, 1000).Usage(); before != 600 || after != before {
		t.Errorf("got %d bytes, and %d after opening again; want 600", before, after)
	}
	s.SetLimit(2000)
	mustSave(t, s, live, 2, 1)
}

// TestTornAndWrongContents offers contents that are not what their names say, from a node that lies
// or a file that changes.
func TestTornAndWrongContents(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	file := checkpoint.File{Path: "a", Mode: 0o600, Size: 4, Hash: hash("good")}
	snapshot := &checkpoint.Snapshot{Attempt: 1, Files: []checkpoint.File{file}}
	n, missing, err := s.Offer(t.Context(), trial, snapshot)
	if n != 0 || len(missing) != 1 || err != nil {
		t.Fatalf("got %d, %v, %v", n, missing, err)
	}
	for _, content := range []string{"evil", "go", "", "good and more"} {
		if err := s.Put(t.Context(), trial, missing[0], strings.NewReader(content)); err == nil {
			t.Errorf("%q was stored as the content %q", content, "good")
		}
		if n, _, err := s.Offer(t.Context(), trial, snapshot); n != 0 || err != nil {
			t.Errorf("after %q: got snapshot %d, %v", content, n, err)
		}
	}
	if err := s.Put(
		t.Context(), trial, checkpoint.Missing{Hash: "../../x", Size: 1}, strings.NewReader("x"),
	); err == nil {
		t.Error("a content was stored outside of the store")
	}
	if err := s.Put(
		t.Context(), grid.TrialID{Sweep: "other", Index: 1}, missing[0], strings.NewReader("good"),
	); err == nil {
		t.Error("a content was stored that no snapshot offers")
	}
	if err := s.Put(t.Context(), trial, missing[0], strings.NewReader("good")); err != nil {
		t.Error(err)
	}
	if n, _, err := s.Offer(t.Context(), trial, snapshot); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := s.Open(t.Context(), trial, "../1.json"); err == nil {
		t.Error("a file was read that is not content")
	}
	if bytes, _ := s.Usage(); bytes != 4 {
		t.Errorf("got %d bytes, want 4", bytes)
	}
}

// TestCheckRefuses holds what a snapshot from elsewhere may not say.
func TestCheckRefuses(t *testing.T) {
	sum := strings.Repeat("a", 64)
	for name, files := range map[string][]checkpoint.File{
		"absolute":      {{Path: "/etc/x", Hash: sum}},
		"upwards":       {{Path: "../x", Hash: sum}},
		"hidden":        {{Path: "a/../../x", Hash: sum}},
		"unclean":       {{Path: "a//x", Hash: sum}},
		"itself":        {{Path: ".", Mode: fs.ModeDir}},
		"empty":         {{Path: "", Hash: sum}},
		"twice":         {{Path: "x", Hash: sum}, {Path: "x", Hash: sum}},
		"no hash":       {{Path: "x"}},
		"short hash":    {{Path: "x", Hash: "aa"}},
		"upper case":    {{Path: "x", Hash: strings.ToUpper(sum)}},
		"negative":      {{Path: "x", Hash: sum, Size: -1}},
		"device":        {{Path: "x", Mode: fs.ModeDevice, Hash: sum}},
		"link, no goal": {{Path: "x", Mode: fs.ModeSymlink}},
		"zero byte":     {{Path: "x\x00y", Hash: sum}},
		"long":          {{Path: strings.Repeat("x", 5000), Hash: sum}},
	} {
		if err := (&checkpoint.Snapshot{Files: files}).Check(); err == nil {
			t.Errorf("%s: %v was accepted", name, files)
		}
	}
	if err := (&checkpoint.Snapshot{V: 99}).Check(); err == nil {
		t.Error("a snapshot of a later version was accepted")
	}
}

// TestRestoreWritesThroughNoLink has a snapshot whose file lies below a link of its own: nothing is
// written to where the link leads.
func TestRestoreWritesThroughNoLink(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	sum := sha256.Sum256([]byte("x"))
	f := &fake{content: "x", snapshot: &checkpoint.Snapshot{Number: 1, Files: []checkpoint.File{
		{Path: "a", Mode: fs.ModeSymlink, Link: outside},
		{Path: "a/b", Mode: 0o600, Size: 1, Hash: hex.EncodeToString(sum[:])},
	}}}
	live := filepath.Join(dir, "live")
	write(t, live, map[string]string{"mine": "1"})
	if err := restore(t, f, 1, live); err == nil {
		t.Error("the snapshot was restored")
	}
	if got := tree(t, outside); got != "" {
		t.Errorf("got %s outside, want nothing", got)
	}
	if b, _ := os.ReadFile(filepath.Join(live, "mine")); string(b) != "1" {
		t.Errorf("got %q in the folder, want what was there", b)
	}
	f.snapshot.Files, f.content = f.snapshot.Files[1:], "y"
	f.snapshot.Files[0].Path = "b"
	if err := restore(t, f, 1, live); !errors.Is(err, checkpoint.ErrCorrupted) {
		t.Errorf("got %v for a content with another hash, of which the store says that it is whole", err)
	}
}

type fake struct {
	checkpoint.Remote
	snapshot *checkpoint.Snapshot
	content  string
}

func (f *fake) Verify(context.Context, grid.TrialID, string) error { return nil }
func (f *fake) Load(context.Context, grid.TrialID, int) (*checkpoint.Snapshot, error) {
	return f.snapshot, nil
}
func (f *fake) Open(context.Context, grid.TrialID, string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte(f.content))), nil
}

// TestReadNoticesChanges changes a folder behind a scan in each way that a program may: what is
// read then is not a snapshot.
func TestReadNoticesChanges(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"grown": func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), []byte("longer"), 0o600) },
		"touched": func(dir string) error {
			now := time.Now().Add(time.Hour)
			return os.Chtimes(filepath.Join(dir, "a"), now, now)
		},
		"clock set back": func(dir string) error {
			past := time.Now().Add(-time.Hour)
			return os.Chtimes(filepath.Join(dir, "a"), past, past)
		},
		"removed": func(dir string) error { return os.Remove(filepath.Join(dir, "a")) },
		"added":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "b"), nil, 0o600) },
		"renamed over, same size and time": func(dir string) error {
			info, err := os.Stat(filepath.Join(dir, "a"))
			if err != nil {
				return err
			}
			other := filepath.Join(dir, "..", "other")
			return errors.Join(
				os.WriteFile(other, []byte("B"), 0o600), os.Chtimes(other, info.ModTime(), info.ModTime()),
				os.Rename(other, filepath.Join(dir, "a")),
			)
		},
		"all gone": func(dir string) error { return os.RemoveAll(dir) },
	} {
		dir := filepath.Join(t.TempDir(), "live")
		write(t, dir, map[string]string{"a": "A"})
		files := scan(t, dir)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if err := checkpoint.HashFiles(t.Context(), dir, files, nil); !errors.Is(err, checkpoint.ErrChanged) {
			t.Errorf("%s: got %v, want ErrChanged", name, err)
		}
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "A"})
	if first := scan(t, dir); checkpoint.HashFiles(t.Context(), dir, first, nil) != nil || first[0].Hash == "" ||
		!checkpoint.Same(first, scan(t, dir)) {
		t.Error("a folder at rest can't be read")
	}
}

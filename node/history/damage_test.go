package history

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
)

// damageFile runs a statement on a closed history.
func damageFile(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// stream returns the file of a closed history of 30 batches.
func stream(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	foldTo(t, d, 30)
	mustClose(t, d)
	return path
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestUnusableFileIsFoldedAnew opens files that can't be used: damaged ones are kept beside the new
// one, others are removed.
func TestUnusableFileIsFoldedAnew(t *testing.T) {
	text := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	statement := func(s string) func(*testing.T, string) {
		return func(t *testing.T, path string) { damageFile(t, path, s) }
	}
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, string)
		kept  bool
	}{
		{"text", text(strings.Repeat("no database\n", 100)), true},
		{"cut short", func(t *testing.T, path string) {
			if err := os.Truncate(path, 4096); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"no summary", statement("UPDATE sweep SET summary = '{'"), true},
		{"known trials cut short", statement("UPDATE known SET bits = x'01'"), true},
		{"no sequence", statement("DELETE FROM meta"), true},
		{"nodes without order",
			statement("UPDATE node SET number = number + 1 WHERE number = (SELECT max(number) FROM node)"), true},
		{"marked", func(t *testing.T, path string) { text("")(t, path+markSuffix) }, true},
		{"older", statement("PRAGMA user_version = 1"), false},
		{"newer", statement("PRAGMA user_version = 1000"), false},
		{"none of ours", statement("PRAGMA user_version = 0"), false},
		{"empty", text(""), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := stream(t)
			c.spoil(t, path)
			d := openAt(t, path)
			defer mustClose(t, d)
			if got := d.Applied(); got != 0 {
				t.Errorf("applied: got %d, want 0", got)
			}
			if got := exists(path + asideSuffix); got != c.kept {
				t.Errorf("the old file is kept: got %t, want %t", got, c.kept)
			}
			if exists(path + markSuffix) {
				t.Error("the mark of damage is still there")
			}
			foldTo(t, d, 10)
			whole := open(t)
			foldTo(t, whole, 10)
			sameAs(t, whole, d)
		})
	}
}

// TestDamageFoundLater damages rows in a way that only reading them reveals: the reader gets an
// error, and the next start folds again.
func TestDamageFoundLater(t *testing.T) {
	for _, c := range []struct{ name, spoil string }{
		{"detail", "UPDATE trial SET detail = x'ff'"},
		{"detail of no bytes", "UPDATE trial SET detail = 'text'"},
		{"earlier detail", "UPDATE trial SET earlier_detail = x'ff'"},
		{"state", "UPDATE trial SET state = 77"},
		{"metrics", "UPDATE trial SET metrics = '{' WHERE metrics IS NOT NULL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := stream(t)
			damageFile(t, path, c.spoil)
			d := openAt(t, path)
			var got error
			for _, err := range d.Trials(t.Context(), "a-1", Query{}) {
				got = err
			}
			const want = "list trials of a-1: history is damaged and is rebuilt at the next start: "
			if got == nil || !strings.HasPrefix(got.Error(), want) {
				t.Errorf("got %v, want %s…", got, want)
			}
			if _, err := d.Fold(t.Context(), []Stored{streamBatch(31)}, retryPolicy); err == nil {
				t.Error("folding into damaged rows worked")
			}
			mustClose(t, d)
			d = openAt(t, path)
			defer mustClose(t, d)
			if d.Applied() != 0 || !exists(path+asideSuffix) {
				t.Errorf("opened again: got sequence %d and old file kept %t, want 0 and true", d.Applied(),
					exists(path+asideSuffix))
			}
		})
	}
}

// TestDamagedPage overwrites pages in the middle of the file.
func TestDamagedPage(t *testing.T) {
	path := stream(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, info.Size()/2), info.Size()/2); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for range 2 { // the first start may find it while it reads
		d := openAt(t, path)
		for range d.Trials(t.Context(), "a-1", Query{}) {
		}
		mustClose(t, d)
	}
	d := openAt(t, path)
	defer mustClose(t, d)
	if d.Applied() != 0 || !exists(path+asideSuffix) {
		t.Errorf("got sequence %d and old file kept %t, want 0 and true", d.Applied(), exists(path+asideSuffix))
	}
}

// TestInterruptedSetAside checks that the log of the old file is not replayed into a new one: a
// mark stays until the log is gone.
func TestInterruptedSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	foldTo(t, d, 20)
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	for suffix, content := range map[string][]byte{asideSuffix: nil, "-wal": log} {
		if err := os.WriteFile(path+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	obstacle := filepath.Join(path+"-shm", "obstacle")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := setAside(path, d.log, errDamaged); err == nil || !exists(path+markSuffix) {
		t.Errorf("interrupted: got %v and the mark %t, want an error and the mark", err, exists(path+markSuffix))
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-wal", log, 0o600); err != nil {
		t.Fatal(err)
	}
	d = openAt(t, path)
	defer mustClose(t, d)
	if d.Applied() != 0 || len(listSweep(t, d, "a-1").Trials) != 0 {
		t.Errorf("got sequence %d and %d trials, want none", d.Applied(), len(listSweep(t, d, "a-1").Trials))
	}
}

// TestFullDisk fills the disk while events are folded: nothing of the failed fold is visible, and
// folding continues once there is room.
func TestFullDisk(t *testing.T) {
	dir := gridtest.SmallDisk(t, "3m", 0)
	d := openAt(t, filepath.Join(dir, "history.db"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := open(t)
	var err error
	for err == nil {
		seq := d.Applied()
		if seq > 10_000 {
			t.Fatal("the disk does not fill")
		}
		_, err = d.Fold(t.Context(), []Stored{streamBatch(seq + 1), streamBatch(seq + 2)}, retryPolicy)
		if err == nil {
			foldTo(t, whole, d.Applied())
		}
	}
	const want = "fold events: database or disk is full (13)"
	if err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if exists(d.path+markSuffix) || !IsFull(err) {
		t.Error("a full disk was taken for damage")
	}
	for range 3 {
		if _, err := d.Fold(t.Context(), []Stored{streamBatch(d.Applied() + 1)}, retryPolicy); err != nil &&
			err.Error() != want {
			t.Errorf("again: got %v, want %s", err, want)
		}
	}
	foldTo(t, whole, d.Applied())
	sameAs(t, whole, d)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	foldTo(t, d, d.Applied()+100)
	foldTo(t, whole, d.Applied())
	sameAs(t, whole, d)
	mustClose(t, d)
	d = openAt(t, d.path)
	sameAs(t, whole, d)
	mustClose(t, d)
}

// TestRemovedSweepStaysAway skips late events of a removed sweep.
func TestRemovedSweepStaysAway(t *testing.T) {
	d := open(t)
	foldTo(t, d, 20)
	if err := d.Remove(t.Context(), "a-1"); err != nil {
		t.Fatal(err)
	}
	other := func(id grid.SweepID) (Policy, bool) { return Policy{}, id != "a-1" }
	for seq := uint64(21); seq < 40; seq++ {
		if _, err := d.Fold(t.Context(), []Stored{streamBatch(seq)}, other); err != nil {
			t.Fatal(err)
		}
	}
	if got := listSweep(t, d, "a-1"); len(got.Trials) > 0 || got.Counts != (Counts{}) || len(got.Terminal) > 0 {
		t.Errorf("a removed sweep came back: %+v", got)
	}
	for _, rows := range []string{"trial WHERE id >> 42", "attempt WHERE trial >> 42", "block WHERE id >> 33",
		"stale WHERE block >> 33",
		"cause WHERE id >> 8", "piece WHERE (id & ((1 << 54) - 1)) >> 33"} {
		left, err := d.w.integer("SELECT count(*) FROM " + rows + " NOT IN (SELECT number FROM sweep)")
		if left != 0 || err != nil {
			t.Errorf("rows of the removed sweep in %.7s: got %d, %v, want none", rows, left, err)
		}
	}
}

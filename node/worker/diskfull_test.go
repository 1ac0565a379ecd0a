package worker

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid/gridtest"
)

// TestFullDisk checks that no trials start while there is no room for what they write, and that
// they do when there is.
func TestFullDisk(t *testing.T) {
	dir := gridtest.SmallDisk(t, "8m", 0)
	disk := &diskMonitor{dir: dir, log: logger(t)}
	began := time.Now()
	if disk.check(began) || disk.full.Load() {
		t.Fatal("an empty disk is called full")
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if disk.check(began) {
		t.Error("the disk is looked at again immediately")
	}
	disk.checkedAt.Store(time.Now().Add(-diskCheckInterval).UnixNano())
	if !disk.check(time.Now()) || !disk.full.Load() {
		t.Error("a disk without room is not called full")
	}
	if !disk.check(time.Now()) {
		t.Error("a full disk counts as free when it is looked at again")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if disk.check(time.Now()) {
		t.Error("a disk that has room again is called full")
	}
}

// TestUnreadableDisk keeps the last known values when the disk can't be examined, and reports that
// once.
func TestUnreadableDisk(t *testing.T) {
	for _, before := range []bool{false, true} {
		var said bytes.Buffer
		disk := &diskMonitor{dir: filepath.Join(t.TempDir(), "gone"), log: slog.New(slog.NewTextHandler(&said, nil))}
		disk.full.Store(before)
		for range 3 {
			disk.checkedAt.Store(0)
			if got := disk.check(time.Now()); got != before {
				t.Errorf("full before: %t; full when nobody can tell: %t", before, got)
			}
		}
		if n := strings.Count(said.String(), "readable=false"); n != 1 {
			t.Errorf("said %d times that the disk can't be read:\n%s", n, said.String())
		}
		if disk.exhausted() {
			t.Error("a folder that is gone is called a full disk")
		}
		if err := os.Mkdir(disk.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		disk.checkedAt.Store(0)
		disk.check(time.Now())
		if !strings.Contains(said.String(), "readable=true") {
			t.Errorf("does not say that the disk can be read again:\n%s", said.String())
		}
	}
}

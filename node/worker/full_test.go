package worker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/grid/gridtest"
)

// TestFullDisk begins no trials while there is no room for what they write, and goes on by itself when there is.
func TestFullDisk(t *testing.T) {
	dir := gridtest.SmallDisk(t, "8m", 0)
	w := &Worker{cfg: Config{Dir: dir, Beats: true, Logger: logger(t)}, log: logger(t)}
	if w.full(time.Now()) || w.Full() {
		t.Fatal("an empty disk is called full")
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if w.full(time.Now()) {
		t.Error("the disk is looked at again at once")
	}
	w.roomSeen.Store(time.Now().Add(-roomTime).UnixNano())
	if !w.full(time.Now()) || !w.Full() {
		t.Error("a disk without room is not called full")
	}
	w.cfg.Beats = false
	if !w.full(time.Now()) {
		t.Error("a node that stands alone begins trials that can't write anything")
	}
	w.cfg.Beats = true
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if w.full(time.Now()) {
		t.Error("a disk that has room again is called full")
	}
}

package master

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// TestHistoryOfAnotherStream gives a master the history of another one, which is as far in its own
// stream: what it reports of the sweep is what is in its stream. A restart leaves a history of the
// same stream as it is.
func TestHistoryOfAnotherStream(t *testing.T) {
	dirs := map[grid.Class]string{grid.ClassNone: t.TempDir(), grid.ClassExit: t.TempDir()}
	for class, dir := range dirs {
		c := restartMaster(t, dir, 2)
		id := c.submit(2, nil)
		for range 2 {
			c.workers.finishLease(c.workers.takeLease(id), class, time.Millisecond)
		}
		c.waitUntilRecordFinished(id)
		c.stopMaster()
	}
	from, to := dirs[grid.ClassExit], dirs[grid.ClassNone]
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(filepath.Join(to, "history.db"+suffix))
	}
	data, err := os.ReadFile(filepath.Join(from, "history.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "history.db"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := restartMaster(t, to, 2)
		if n := c.counts("t-1"); n.Succeeded != 2 {
			t.Errorf("history counts %+v, want 2 succeeded", n)
		}
		c.stopMaster()
	}
}

// TestHistoryWithoutSweepsOfNewerVersions stores a record that this version can't read: history
// leaves the sweep's events out and records so. A newer version completes it, and this one does not
// fold everything at each start.
func TestHistoryWithoutSweepsOfNewerVersions(t *testing.T) {
	dir := t.TempDir()
	c := restartMaster(t, dir, 2)
	id := c.submit(1, nil)
	c.workers.finishLease(c.workers.takeLease(id), grid.ClassNone, time.Millisecond)
	c.waitUntilRecordFinished(id)
	newer := newSweep(t, "newer-1", 1)
	newer.V = grid.RecordVersion + 1
	if _, err := c.store.Records.Create(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	if _, err := c.store.Events.Publish(t.Context(), endedEvents("newer-1", "n", 100)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.stopMaster()
		c = restartMaster(t, dir, 2)
		_, last, err := c.store.Events.Bounds(t.Context())
		if want := (history.Origin{Stream: c.store.Events.Epoch(),
			Unread: grid.RecordVersion}); c.cfg.History.Origin() != want || err != nil {
			t.Errorf("got %+v, %v; want %+v", c.cfg.History.Origin(), err, want)
		}
		if got := c.cfg.History.Applied(); got != last {
			t.Errorf("history has come to %d of %d", got, last)
		}
	}
	c.stopMaster()
	c = newTestMaster(t, dir, 2, nil, nil)
	first, last, err := c.store.Events.Bounds(t.Context())
	if err == nil {
		err = c.fold.checkHistory(t.Context(), first, last, grid.RecordVersion+1)
	}
	if got := c.cfg.History.Applied(); got != 0 || err != nil {
		t.Errorf("with a version that knows more, history has come to %d, %v; want it to be folded from the start", got,
			err)
	}
}

package master

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// TestFullDiskDoesNotEndTheMaster folds events for which the disk has no room until something is
// removed.
func TestFullDiskDoesNotEndTheMaster(t *testing.T) {
	dir := gridtest.SmallDisk(t, "3m", 0)
	db, err := history.Open(filepath.Join(dir, "history.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	m := New(Config{Store: &jetstream.Store{}, History: db, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	m.storeRecord(jetstream.Change{ID: "t-1", Record: jetstream.Record{Sweep: newSweep(t, "t-1", 1<<30), Rev: 1}})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	freed := false
	for seq := uint64(1); seq < 2000; seq++ {
		if m.Problem() != "" {
			t.Fatal("a problem is left from an earlier fold")
		}
		ended := make(chan error, 1)
		go func() {
			_, err := m.fold.foldWithRetry(t.Context(), []history.Stored{{Seq: seq, Batch: manyFinished(seq)}})
			ended <- err
		}()
		for waiting := true; waiting; {
			select {
			case err := <-ended:
				if waiting = false; err != nil {
					t.Fatal(err)
				}
			case <-m.Changed():
				if freed && m.Problem() == "" {
					continue // it has gone on
				}
				if freed || m.Problem() == "" {
					t.Fatalf("problem: got %q", m.Problem())
				}
				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
				freed = true
			}
		}
		if freed {
			if m.Problem() != "" {
				t.Errorf("there is room again, and the problem is still %q", m.Problem())
			}
			return
		}
	}
	t.Fatal("the disk does not fill")
}

// manyFinished returns a batch in which a hundred trials end.
func manyFinished(seq uint64) *grid.Batch {
	b := &grid.Batch{V: grid.EventVersion, Sweep: "t-1", Node: "n"}
	for i := range int64(100) {
		b.Events = append(b.Events, grid.Event{
			Kind: grid.Finished, Index: int64(seq)*100 + i, Attempt: 1, Run: "n.1." + string(rune('a'+i)), Time: 2,
			Result: &grid.Result{Started: 1},
		})
	}
	return b
}

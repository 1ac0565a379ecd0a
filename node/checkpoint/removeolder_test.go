package checkpoint

import (
	"log/slog"
	"testing"
	"time"

	"mlfnode/grid"
)

// TestRoomIsMadeOfWhatIsSpareThen has the newest snapshot of a trial be rejected while room is
// made: the one before it, which could have gone a moment before, stays.
func TestRoomIsMadeOfWhatIsSpareThen(t *testing.T) {
	s, err := OpenStore(t.TempDir(), 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := grid.TrialID{Sweep: "s-1"}
	k := s.lock(id)
	k.snapshots = []*Snapshot{{Number: 1, Clean: true}, {Number: 2, Clean: true}}
	made := make(chan struct{})
	go func() {
		defer close(made)
		s.removeOlder(2)
	}()
	<-time.After(100 * time.Millisecond) // it waits for the trial
	k.removeSnapshots([]int{2})
	k.diskMu.Unlock()
	<-made
	if _, err := s.Load(t.Context(), id, 1); err != nil {
		t.Errorf("the only generation is gone: %v", err)
	}
}

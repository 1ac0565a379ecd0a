package monitor

import (
	"testing"
	"time"

	"mlfnode/grid"
)

// TestRate counts the trials of two sweeps by the minute in which they ended, those of the last
// hour only.
func TestRate(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	now := time.Now().Truncate(time.Minute).Add(30 * time.Second)
	const lost = 5 * time.Minute // its duration is unknown
	ids := []grid.SweepID{b.submit(t, "p", "x", 10, 4), b.submit(t, "q", "x", 3, 1)}
	seq := uint64(0)
	for n, e := range []struct {
		sweep grid.SweepID
		index int64
		ago   time.Duration
		class grid.Class
	}{
		{ids[0], 0, 2 * time.Minute, ""}, {ids[0], 1, 2 * time.Minute, grid.ClassExit}, {ids[0], 2, 3 * time.Hour, ""},
		{ids[0], 3, 0, ""}, {ids[1], 0, 59 * time.Minute, ""}, {ids[1], 1, lost, grid.ClassExit},
	} {
		end := now.Add(-e.ago)
		r := &grid.Result{Class: e.class, Started: end.Add(-time.Second).UnixMicro(), Usage: grid.Usage{Wall: 1e6}}
		if e.ago == lost {
			r.Started, r.Usage = end.Add(-2*time.Hour).UnixMicro(), grid.Usage{}
		}
		batch := &grid.Batch{V: grid.EventVersion, Sweep: e.sweep, Node: "n1", Events: []grid.Event{
			{Kind: grid.Finished, Index: e.index, Attempt: 1, Run: "n1.1." + string(rune('0'+e.index)),
				Time: end.UnixMicro(), Result: r}}}
		var err error
		if seq, err = b.store.Events.Publish(t.Context(), batch); err != nil {
			t.Fatalf("event %d: %v", n, err)
		}
	}
	limit := time.After(time.Minute)
	for b.cfg.History.Applied() < seq {
		select {
		case <-time.After(10 * time.Millisecond): // the loop lags behind the store
		case <-limit:
			t.Fatal("the events are not seen")
		}
	}
	v, err := b.handlers.charts.countRate(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int][3]int64{}
	for i := range v.Succeeded {
		if n := [3]int64{v.Succeeded[i], v.Failed[i], v.Cancelled[i]}; n != [3]int64{} {
			got[rateSteps-1-i] = n // minutes ago
		}
	}
	if len(got) != 4 || got[5] != [3]int64{0, 1, 0} || got[2] != [3]int64{1, 1, 0} || got[0] != [3]int64{1, 0, 0} ||
		got[59] != [3]int64{1, 0, 0} {
		t.Errorf(
			"got %v, want 1 and 1 failed 2 minutes ago, 1 now, 1 59 minutes ago, and 1 whose node died 5 minutes ago",
			got)
	}
	if want := "5 trials ended in the last hour, at most 2 in a minute."; v.Sentence != want {
		t.Errorf("it says %q, want %q", v.Sentence, want)
	}
}

package grid

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid/ranges"
)

// TestBundleOf compares updates, before and after encoding, with a plain table of each trial's
// files.
func TestBundleOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Sweep{Bundle: "0"}
		want := map[int64]string{}
		var history []map[int64]string
		begin := time.Now().UTC()
		for n := range rapid.IntRange(0, 4).Draw(t, "updates") {
			trials := slices.Sorted(slices.Values(rapid.SliceOfDistinct(rapid.Int64Range(0, 30), rapid.ID).Draw(t,
				"trials")))
			u := NewUpdate(string(rune('1'+n)), begin.Add(time.Duration(n+1)*time.Minute), rangesOf(trials))
			s.Updates = append(s.Updates, u)
			now := map[int64]string{}
			for k, v := range want {
				now[k] = v
			}
			for _, i := range trials {
				now[i] = u.Bundle
			}
			want = now
			history = append(history, now)
		}
		b, err := json.Marshal(s.Updates)
		if err == nil {
			s.Updates = nil
			err = json.Unmarshal(b, &s.Updates)
		}
		if err != nil {
			t.Fatal(err)
		}
		of := func(table map[int64]string, i int64) string {
			if b, ok := table[i]; ok {
				return b
			}
			return "0"
		}
		for i := range int64(32) {
			if got := s.BundleOf(i); got != of(want, i) {
				t.Fatalf("trial %d: got %s, want %s of %+v", i, got, of(want, i), s.Updates)
			}
			if got := s.BundleAt(i, begin.UnixMicro()); got != "0" {
				t.Fatalf("trial %d before all updates: got %s, want 0", i, got)
			}
			for n, table := range history {
				if got := s.BundleAt(i, s.Updates[n].At.UnixMicro()); got != of(table, i) {
					t.Fatalf("trial %d at update %d: got %s, want %s", i, n, got, of(table, i))
				}
			}
		}
	})
	s := &Sweep{Bundle: "a", Updates: []Update{{Bundle: "b"}, {Bundle: "a"}, {Bundle: "c"}}}
	if diff := cmp.Diff([]string{"a", "b", "c"}, s.Bundles()); diff != "" {
		t.Errorf("bundles (-want +got):\n%s", diff)
	}
	if got := NewUpdate("b", time.Time{}, rangesOf([]int64{0, 1, 2, 5, 7, 8})).Trials; len(got) != 3 {
		t.Errorf("got ranges %v, want three", got)
	}
}

func rangesOf(trials []int64) *ranges.Set {
	all := &ranges.Set{}
	for _, i := range trials {
		all.Add(i, i+1)
	}
	return all
}

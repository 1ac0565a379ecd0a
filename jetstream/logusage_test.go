package jetstream

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"mlfnode/grid"
)

// openUntil opens a store until end is called.
func openUntil(t *testing.T, dir string, limits Limits) (s *Store, end func()) {
	t.Helper()
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = server.OpenStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, func() {
		s.Close()
		server.Close()
	}
}

// publishOutputOf stores output of a node, in messages of each bytes, and returns the sequences.
func publishOutputOf(t *testing.T, s *Store, node grid.NodeID, bytes, each int) (seqs []uint64) {
	t.Helper()
	for bytes > 0 {
		_, _, err := packAll([]Chunk{{Run: string(node) + ".1.1", Stream: 1, Data: make([]byte, each)}},
			func(data []byte) (uint64, error) {
				seq, err := s.Logs.publishMessage(t.Context(), node, grid.SweepID("of-"+node), data)
				seqs = append(seqs, seq)
				return seq, err
			})
		if err != nil {
			t.Fatal(err)
		}
		bytes -= each
	}
	return seqs
}

// storedOutputOf returns the sequences of a node's stored output.
func storedOutputOf(t *testing.T, s *Store, node grid.NodeID) (seqs []uint64) {
	t.Helper()
	err := s.Logs.Read(t.Context(), grid.SweepID("of-"+node), LogRange{}, func(seq uint64, _ []Chunk) error {
		seqs = append(seqs, seq)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seqs
}

// TestLoudNodeKeepsOutputOfOthers lets one node print many times what fits: the earlier output of
// another node stays, most of the room is used, and the amount that was removed is known, even
// after a restart.
func TestLoudNodeKeepsOutputOfOthers(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	dir := t.TempDir()
	s, end := openUntil(t, dir, Limits{LogBytes: limit})
	quiet := publishOutputOf(t, s, "quiet", limit/10, 10_000)
	loud := publishOutputOf(t, s, "loud", 4*limit, 20_000)
	check := func(s *Store, when string) {
		t.Helper()
		if got := storedOutputOf(t, s, "quiet"); !slices.Equal(got, quiet) {
			t.Errorf("%s: %d of %d messages of the quiet node are there", when, len(got), len(quiet))
		}
		kept, err := s.Logs.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if from := kept.First("quiet"); from > quiet[0] {
			t.Errorf("%s: output of the quiet node is reported from %d on, and begins at %d", when, from, quiet[0])
		}
		from := kept.First("loud")
		want := loud[slices.IndexFunc(loud, func(seq uint64) bool { return seq >= from }):]
		if got := storedOutputOf(t, s, "loud"); !slices.Equal(got, want) ||
			len(got)*20_000 < limit/2 || from <= loud[0] {
			t.Errorf("%s: %d messages of the loud node are stored, from %d on; reported are %d from %d on", when,
				len(got), got[0], len(want), from)
		}
	}
	check(s, "at once")
	end()
	s = open(t, dir, Limits{LogBytes: limit})
	check(s, "after a restart")
	for i := range 4 { // now the other way round
		publishOutputOf(t, s, grid.NodeID(fmt.Sprint("more", i)), limit/4, 20_000)
	}
	if got := storedOutputOf(t, s, "quiet"); len(got) == len(quiet) {
		t.Error("the oldest output stays although no node uses more than half of the room")
	}
}

// TestSingleNodeUsesAllRoom checks that, on a single node, the oldest output is removed, and no
// more than necessary.
func TestSingleNodeUsesAllRoom(t *testing.T) {
	t.Parallel()
	const limit = 2 << 20
	s := open(t, t.TempDir(), Limits{LogBytes: limit})
	publishOutputOf(t, s, "n", 3*limit, 20_000)
	kept, err := s.Logs.Bounds(t.Context())
	if got := storedOutputOf(t, s, "n"); err != nil || len(got)*20_000 < limit*9/10 || len(kept.removedUpTo) != 0 ||
		kept.First("n") != got[0] {
		t.Errorf("got %d messages from %d on, %v; kept %+v", len(got), got[0], err, kept)
	}
}

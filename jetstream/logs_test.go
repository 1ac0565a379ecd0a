package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func genChunk(t *rapid.T) Chunk {
	return Chunk{
		Index:  rapid.Int64Range(0, 3).Draw(t, "index"),
		Run:    rapid.SampledFrom([]string{"", "n1-1-2", "n2-9-9"}).Draw(t, "run"),
		Stream: rapid.SampledFrom([]uint8{1, 2, 3}).Draw(t, "stream"), Offset: rapid.Int64Min(0).Draw(t, "offset"),
		Time: rapid.Int64Min(0).Draw(t, "time"), Data: rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "data"),
	}
}

func TestChunksRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(genChunk), 1, 20).Draw(t, "chunks")
		p := packer{}
		data, left := p.pack(want)
		got, err := decodeChunks(data)
		if err != nil || len(left) != 0 {
			t.Fatalf("decode: %v, %d left", err, len(left))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("chunks (-want +got):\n%s", diff)
		}
	})
}

// TestPackKeepsEveryByte packs chunks of all sizes, and joins the results.
func TestPackKeepsEveryByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 1000, splitBytes - 40, splitBytes, splitBytes + 1,
			3 * splitBytes}), 1, 6).Draw(t, "sizes")
		var chunks []Chunk
		var want []byte
		for i, n := range sizes {
			data := bytes.Repeat([]byte{byte('a' + i)}, n)
			chunks = append(chunks, Chunk{Run: "r", Stream: 1, Offset: int64(len(want)), Data: data})
			want = append(want, data...)
		}
		var got []byte
		p := packer{}
		for len(chunks) > 0 {
			var data []byte
			data, chunks = p.pack(chunks)
			if len(data) > splitBytes+100 {
				t.Fatalf("message of %d bytes", len(data))
			}
			back, err := decodeChunks(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range back {
				if c.Offset != int64(len(got)) {
					t.Fatalf("chunk at %d, want %d", c.Offset, len(got))
				}
				got = append(got, c.Data...)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	})
}

func FuzzDecodeChunks(f *testing.F) {
	p := packer{}
	good, _ := p.pack([]Chunk{{Index: 3, Run: "n1-1-2", Stream: 2, Offset: 7, Time: 9, Data: []byte("hello")},
		{Index: 3, Run: "n1-1-2", Stream: 1}})
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add([]byte{chunkVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		chunks, err := decodeChunks(b)
		if err != nil || len(chunks) == 0 {
			return
		}
		total := 0
		for _, c := range chunks {
			total += len(c.Data)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of data from %d", total, len(b))
		}
	})
}

func publishLines(t *testing.T, s *Store, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		line := []Chunk{{Index: int64(i), Run: "r", Stream: 1, Data: fmt.Appendf(nil, "line %d\n", i)}}
		if _, _, err := s.Logs.Publish(t.Context(), "a-1", line); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Logs.Publish(t.Context(), "other-1", line); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	publishLines(t, s, 0, 5) // sequences 1 3 5 7 9
	read := func(r LogRange) (seqs []uint64) {
		t.Helper()
		err := s.Logs.Read(t.Context(), "a-1", r, func(seq uint64, chunks []Chunk) error {
			seqs = append(seqs, seq)
			return nil
		})
		if err != nil {
			t.Fatalf("read %+v: %v", r, err)
		}
		return seqs
	}
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name string
		r    LogRange
		want []uint64
	}{
		{"all", LogRange{}, []uint64{1, 3, 5, 7, 9}},
		{"from", LogRange{First: 4}, []uint64{5, 7, 9}},
		{"between", LogRange{First: 3, Last: 7}, []uint64{3, 5, 7}},
		{"last between messages", LogRange{First: 3, Last: 6}, []uint64{3, 5}},
		{"follow to last", LogRange{Last: 9, Follow: true}, []uint64{1, 3, 5, 7, 9}},
		{"past the end", LogRange{First: 100}, nil},
		{"since before", LogRange{Since: time.Now().Add(-time.Hour)}, []uint64{1, 3, 5, 7, 9}},
		{"since later", LogRange{Since: later}, nil},
	} {
		if diff := cmp.Diff(c.want, read(c.r)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if next, err := s.Logs.Next(t.Context()); next != 11 || err != nil {
		t.Errorf("next: got %d, %v; want 11", next, err)
	}
	if err := s.Logs.PurgeSweep(t.Context(), "a-1"); err != nil {
		t.Fatal(err)
	}
	if got := read(LogRange{}); got != nil {
		t.Errorf("after purge: got %v, want none", got)
	}
}

func TestLogsFollow(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	publishLines(t, s, 0, 2)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	got := make(chan int64, 16)
	done := make(chan error, 1)
	go func() {
		done <- s.Logs.Read(ctx, "a-1", LogRange{Follow: true}, func(_ uint64, chunks []Chunk) error {
			got <- chunks[0].Index
			return nil
		})
	}()
	<-got
	<-got
	publishLines(t, s, 2, 3)
	var late []int64
	for range 3 {
		late = append(late, <-got)
	}
	if !slices.Equal(late, []int64{2, 3, 4}) {
		t.Errorf("got %v, want 2 3 4", late)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("read ended with %v, want canceled", err)
	}
}

func TestLargeOutputIsSplit(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	want := bytes.Repeat([]byte("0123456789"), 200_000)
	first, last, err := s.Logs.Publish(t.Context(), "a-1", []Chunk{{Run: "r", Stream: 2, Data: want}})
	if err != nil || first != 1 || last < 4 {
		t.Fatalf("publish: got %d to %d, %v; want 1 to 4 or more", first, last, err)
	}
	var got []byte
	err = s.Logs.Read(t.Context(), "a-1", LogRange{First: first, Last: last}, func(_ uint64, chunks []Chunk) error {
		for _, c := range chunks {
			got = append(got, c.Data...)
		}
		return nil
	})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestFullLogsDropTheOldest(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{LogBytes: 1 << 20})
	for i := range 40 {
		if _, _, err := s.Logs.Publish(t.Context(), "a-1",
			[]Chunk{{Index: int64(i), Data: make([]byte, 100_000)}}); err != nil {
			t.Fatal(err)
		}
	}
	var seqs []uint64
	err := s.Logs.Read(t.Context(), "a-1", LogRange{First: 1}, func(seq uint64, _ []Chunk) error {
		seqs = append(seqs, seq)
		return nil
	})
	if err != nil || len(seqs) == 0 || seqs[0] == 1 || seqs[len(seqs)-1] != 40 {
		t.Errorf("got %v, %v; want the newest only", seqs, err)
	}
}

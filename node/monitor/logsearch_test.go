package monitor

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// TestFinder compares the finder with a comparison at each offset, for texts with and without
// letters, in data whose sample is misleading about what is rare.
func TestFinder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exact := rapid.Bool().Draw(t, "exact")
		data := rapid.StringMatching(`[aAbB1. \xe4\xc4]{0,60}`).Draw(t, "data")
		if rapid.Bool().Draw(t, "behind other data") {
			data = strings.Repeat("B1", sampleBytes/2) + data
		}
		text := rapid.StringMatching(`[aAbB1. \xe4\xc4]{1,4}`).Draw(t, "text")
		lower := func(s string) string {
			if exact {
				return s
			}
			return strings.NewReplacer("A", "a", "B", "b").Replace(s) // there are no other letters here
		}
		f := newTextFinder(text, exact)
		f.reset([]byte(data))
		for from := 0; ; {
			want := strings.Index(lower(data)[from:], lower(text))
			if want >= 0 {
				want += from
			}
			if got := f.next(from); got != want {
				t.Fatalf("%q from %d in %q: got %d, want %d", text, from, data, got, want)
			}
			if want < 0 {
				break
			}
			from = want + len(text)
		}
	})
	for c := range 256 {
		want := byte(c)
		if 'A' <= c && c <= 'Z' {
			want |= 0x20
		}
		if got := toLower(byte(c)); got != want {
			t.Errorf("byte %d: got %d, want %d", c, got, want)
		}
	}
}

// TestSearchFindsAll cuts the output of two streams into pieces, some of which are duplicated:
// every hit on a line is found, at its offset.
func TestSearchFindsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"ab", "a", "aab"}).Draw(t, "word")
		var chunks []jetstream.Chunk
		var texts [3]string
		for range rapid.IntRange(0, 12).Draw(t, "chunks") {
			stream := rapid.Uint8Range(1, 2).Draw(t, "stream")
			data := rapid.StringMatching(`[abA\n\r]{1,6}`).Draw(t, "data")
			back := rapid.IntRange(0, min(2, len(texts[stream]))).Draw(t, "again")
			from := len(texts[stream]) - back
			chunks = append(chunks, jetstream.Chunk{Stream: stream, Offset: int64(from),
				Data: []byte(texts[stream][from:] + data)})
			texts[stream] += data
		}
		var got [3][]int // offsets in the stream
		var p position
		places := map[int64][2]int{} // stream and offset of the bytes, by their offset in all streams
		s := newSearch(word, false, 1000)
		for _, c := range chunks {
			data := p.advance(&c)
			for i := range data {
				places[p.all-int64(len(data)-i)] = [2]int{int(c.Stream), int(p.ends[c.Stream]) - len(data) + i}
			}
			s.add(c.Stream, p.all-int64(len(data)), data)
		}
		for _, hit := range s.finish() {
			at, ok := places[hit.Offset]
			if !ok || !strings.EqualFold(hit.Match, word) {
				t.Fatalf("hit %+v is of no byte", hit)
			}
			got[at[0]] = append(got[at[0]], at[1])
		}
		for stream, text := range texts {
			var want []int
			low := strings.ToLower(text)
			for from := 0; ; {
				i := strings.Index(low[from:], word)
				if i < 0 {
					break
				}
				want = append(want, from+i)
				from += i + len(word)
			}
			slices.Sort(got[stream])
			if !slices.Equal(got[stream], want) {
				t.Fatalf("in %q got %v, want %v", text, got[stream], want)
			}
		}
	})
}

// TestMarksOfLongOutput marks more messages than are kept: the kept marks are spread evenly, and
// lead to the last mark before an offset.
func TestMarksOfLongOutput(t *testing.T) {
	l := &logIndex{every: 1}
	const messages = 10 * maxMarks
	for seq := range int64(messages) {
		l.mark(uint64(seq+1), position{all: 10 * seq})
	}
	if len(l.marks) >= maxMarks || l.every > 32 {
		t.Errorf("%d marks are kept, one of %d messages", len(l.marks), l.every)
	}
	for _, offset := range []int64{0, 1, 5000, 10*messages - 1, 20 * messages} {
		got := l.markBefore(0, offset)
		if got.all > offset || got.seq != uint64(got.all/10+1) ||
			min(offset, 10*messages)-got.all > 10*2*int64(l.every) {
			t.Errorf("before %d: got %+v", offset, got)
		}
	}
}

// TestSearchPassesOverOthers searches output among thousands of messages of others, under any time
// limit: a search ends when it must, continues where it ended, finds everything once, and knows
// afterwards what to skip.
func TestSearchPassesOverOthers(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	id := b.submit(t, "p", "x", 2, 2)
	publish := func(index, offset int64, text string) uint64 {
		t.Helper()
		_, seq, err := b.store.Logs.Publish(t.Context(), id,
			[]jetstream.Chunk{{Index: index, Run: "n1.1." + strconv.FormatInt(index, 10), Stream: 1, Offset: offset,
				Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	others := func() {
		for i := range int64(2 * minGap) {
			publish(1, i, "x")
		}
	}
	const first, second, third = "a wo", "rd, and\n", "a word\n"
	var at [3]uint64
	others()
	at[0] = publish(0, 0, first)
	others()
	at[1] = publish(0, int64(len(first)), second)
	publish(1, 0, "x")
	at[2] = publish(0, int64(len(first+second)), third)
	others()
	b.handlers.logs.indexes.timeout = 0
	var got []int64
	calls := 0
	for query, more := "q=word", true; more; calls++ {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/?"+query, nil)
		r.SetPathValue("sweep", string(id))
		r.SetPathValue("index", "0")
		out, err := b.handlers.logs.search(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, hit := range out.Hits {
			got = append(got, hit.Offset)
		}
		if more = out.Next != nil; more {
			query = "q=word&offset=" + strconv.FormatInt(*out.Next, 10)
		}
		b.handlers.logs.indexes.timeout = 2*b.handlers.logs.indexes.timeout + time.Microsecond
	}
	if want := []int64{2, int64(len(first+second)) + 2}; !slices.Equal(got, want) || calls < 2 {
		t.Errorf("got hits at %v in %d calls, want %v in several", got, calls, want)
	}
	running := &trialLog{sweep: id, run: "n1.1.0", since: time.Now().Add(-time.Hour)}
	ended := &trialLog{sweep: id, run: "n1.1.0", ended: true, ref: grid.LogRef{First: at[0], Last: at[2]}}
	for _, log := range []*trialLog{running, ended, running} {
		index := b.handlers.logs.indexes.get(log)
		if log.ended {
			index = &logIndex{sweep: id, run: log.run, every: 1}
		}
		walk := func() string {
			var text strings.Builder
			err := index.walk(t.Context(), b.store.Logs, log, 0, 0,
				func(_ uint64, _ position, c *jetstream.Chunk) error {
					text.Write(c.Data)
					return nil
				})
			if err != nil {
				t.Fatal(err)
			}
			return text.String()
		}
		for range 2 {
			if got := walk(); got != first+second+third {
				t.Errorf("ended: %v: a walk gave %q", log.ended, got)
			}
		}
		if want := []logGap{{at[0], at[1]}}; !slices.Equal(index.gaps, want) || index.last != at[2] {
			t.Errorf("ended: %v: the index has the gaps %v, want %v", log.ended, index.gaps, want)
		}
		if log.ended { // the walk trusts the index
			index.gaps[0].next = at[2]
			if got := walk(); got != first+third {
				t.Errorf("a walk jumps over nothing: got %q", got)
			}
		}
	}
}

// TestSearchKeepsOutput searches the output of an ended attempt again: cached output has the same
// hits as output that is read, in all streams and in one, from any offset. Nothing is cached for
// other attempts, for parts of an output, or for output that is too large.
func TestSearchKeepsOutput(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	id := b.submit(t, "p", "x", 2, 2)
	var chunks []jetstream.Chunk
	var ends [3]int64
	for i := range 40 {
		c := jetstream.Chunk{Index: 0, Run: "n1.1.0", Stream: uint8(1 + i%2),
			Data: []byte(fmt.Sprintf("line %d\nand ", i))}
		if i == 7 {
			c.Data = bytes.Repeat([]byte("a long line\n"), largePart/8)
		}
		c.Offset = ends[c.Stream]
		ends[c.Stream] += int64(len(c.Data))
		chunks = append(chunks, c)
	}
	first, last, err := b.store.Logs.Publish(t.Context(), id, chunks)
	if err != nil {
		t.Fatal(err)
	}
	log := &trialLog{sweep: id, run: "n1.1.0", ended: true, ref: grid.LogRef{First: first, Last: last}}
	hits := func(text string, stream uint8, offset int64) []api.LogHit {
		t.Helper()
		s := newSearch(text, false, api.MaxHits)
		err := b.handlers.logs.readLog(t.Context(), log, stream, offset, func(p position, c *jetstream.Chunk) error {
			at, data := p.of(stream), c.Data
			if data = data[min(max(0, offset-at), int64(len(data))):]; (stream == 0 || c.Stream == stream) &&
				len(data) > 0 {
				s.add(c.Stream, p.of(stream)+int64(len(c.Data)-len(data)), data)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return s.finish()
	}
	type query struct {
		text   string
		stream uint8
		offset int64
	}
	queries := []query{{"LINE 3", 0, 0}, {"line", 1, 0}, {"and line 2", 2, 0}, {"line 1", 0, 100}, {"nothing", 0, 0}}
	var want [][]api.LogHit
	for _, q := range queries {
		b.handlers.logs.indexes.cache.pieces = nil
		want = append(want, hits(q.text, q.stream, q.offset))
		if kept := b.handlers.logs.indexes.cache.get(log) != nil; kept != (q.stream == 0 && q.offset == 0) {
			t.Errorf("%+v: kept %t", q, kept)
		}
	}
	hits("line", 0, 0)
	kept := b.handlers.logs.indexes.cache.get(log)
	if kept == nil || len(want[0]) == 0 || len(want[1]) == 0 || len(want[2]) == 0 || len(want[3]) == 0 {
		t.Fatalf("%d pieces are kept, and there are the hits %v", len(kept), want)
	}
	for i, q := range queries {
		if got := hits(q.text, q.stream, q.offset); !slices.Equal(got, want[i]) {
			t.Errorf("%+v: got %v, want %v", q, got, want[i])
		}
	}
	if b.handlers.logs.indexes.cache.get(&trialLog{sweep: id, run: "n1.1.1"}) != nil ||
		b.handlers.logs.indexes.cache.get(&trialLog{sweep: "p-9", run: log.run}) != nil {
		t.Error("the output of another attempt is kept")
	}
	log.ended = false
	b.handlers.logs.indexes.cache.pieces = nil
	if hits("line", 0, 0); b.handlers.logs.indexes.cache.pieces != nil {
		t.Error("the output of a running attempt is kept")
	}
	for name, c := range map[string]struct{ pieces, bytes int }{
		"large": {logCacheBytes/messageBytes + 1, largePart}, "tiny": {logCacheBytes / 64, 1},
		"empty": {logCacheBytes / 64, 0},
	} {
		var r recorder
		for range c.pieces {
			r.add(position{}, &jetstream.Chunk{Data: make([]byte, c.bytes)})
		}
		if !r.incomplete || r.pieces != nil {
			t.Errorf("%d %s pieces of %d bytes would be kept", len(r.pieces), name, r.bytes)
		}
	}
}

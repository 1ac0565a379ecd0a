package monitor

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/jetstream"
)

// TestSearchFindsAll cuts the output of two streams into pieces, some of which come twice: every hit on a
// line is found, at its offset.
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
			chunks = append(chunks, jetstream.Chunk{Stream: stream, Offset: int64(from), Data: []byte(texts[stream][from:] + data)})
			texts[stream] += data
		}
		var got [3][]int // places in the stream
		var p position
		places := map[int64][2]int{} // of bytes by their offset in all
		s := newSearch(word, false, 1000)
		for _, c := range chunks {
			data := p.fresh(&c)
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

// TestMarksOfLongOutput marks more messages than are kept: what is kept is spread over all, and leads to the last mark before an offset.
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
		got := l.before(0, offset)
		if got.all > offset || got.seq != uint64(got.all/10+1) || min(offset, 10*messages)-got.all > 10*2*int64(l.every) {
			t.Errorf("before %d: got %+v", offset, got)
		}
	}
}

package monitor

import (
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// printingSweep is a sweep of three trials that print in turn, interleaved with the output of
// another sweep. All lines of each trial are known.
type printingSweep struct {
	*sweepBench
	id   string
	text [3]map[string]string // by stream
	all  []string             // pieces in the order in which they were stored, as index, stream and text
}

func newPrintingSweep(t *testing.T, rounds int) *printingSweep {
	t.Helper()
	b := newSweepBench(t)
	id := b.submit(t, "p", "x", 3, 3)
	p := &printingSweep{sweepBench: b, id: string(id)}
	other := b.submit(t, "q", "x", 1, 1)
	for i := range p.text {
		p.text[i] = map[string]string{}
	}
	for n := range rounds {
		index, stream := n%3, uint8(1+n%5/4)
		name, text := streamName(stream), fmt.Sprintf("line %d of %d\n", n, index)
		c := jetstream.Chunk{Index: int64(index), Run: "n1.1." + strconv.Itoa(index), Stream: stream,
			Offset: int64(len(p.text[index][name])), Data: []byte(text)}
		chunks := []jetstream.Chunk{c}
		if n%7 == 0 {
			chunks = append(chunks, c) // stored twice, as after a failure
		}
		if _, _, err := b.store.Logs.Publish(t.Context(), id, chunks); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.store.Logs.Publish(t.Context(), other,
			[]jetstream.Chunk{{Run: "n1.1.0", Stream: 1, Offset: int64(n), Data: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		p.text[index][name] += text
		p.all = append(p.all, fmt.Sprintf("%d %s %s", index, name, text))
	}
	return p
}

// window requests a part, with a longer time limit each time.
func (p *printingSweep) window(t *testing.T, query string) api.SweepLog {
	t.Helper()
	p.handlers.logs.indexes.timeout = min(time.Minute, 2*p.handlers.logs.indexes.timeout+time.Microsecond)
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/?"+query, nil)
	r.SetPathValue("sweep", p.id)
	w, err := p.handlers.logs.sweepWindow(r)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return w
}

func piecesOf(w api.SweepLog) (text string) {
	for _, p := range w.Pieces {
		text += fmt.Sprintf("%d %s %s", p.Index, p.Stream, p.Data)
	}
	return text
}

// walk goes from the end to the beginning, and from the beginning to the end.
func (p *printingSweep) walk(t *testing.T, query string) (back, forth string) {
	t.Helper()
	w := p.window(t, query)
	for back = piecesOf(w); w.From > w.First; {
		w = p.window(t, fmt.Sprintf("%s&before=%d", query, w.From))
		back = piecesOf(w) + back
	}
	for from := int64(0); ; from = w.Next {
		w = p.window(t, fmt.Sprintf("%s&from=%d", query, from))
		if forth += piecesOf(w); w.Next >= w.Total {
			return back, forth
		}
	}
}

// TestSweepLog reads the output of a sweep's trials from both ends, all of it or a part, under any
// time limit: everything appears once, in order.
func TestSweepLog(t *testing.T) {
	t.Parallel()
	p := newPrintingSweep(t, 300)
	for _, c := range []struct {
		query    string
		patience time.Duration
		keep     func(string) bool
	}{
		{"limit=2000", time.Minute, func(string) bool { return true }},
		{"limit=131072", time.Minute, func(string) bool { return true }},
		{"limit=2000", 0, func(string) bool { return true }},
		{"limit=1000&stream=stderr", time.Minute, func(s string) bool { return strings.Contains(s, " stderr ") }},
		{"limit=3000&p[i]=1", time.Minute, func(s string) bool { return strings.HasPrefix(s, "1 ") }},
		{"limit=3000&d[i]=1..2&stream=stdout", time.Minute, func(s string) bool {
			return s[0] != '0' && strings.Contains(s, " stdout ")
		}},
		{"limit=3000&state=failed", time.Minute, func(string) bool { return false }},
	} {
		p.handlers.logs.indexes.timeout = c.patience
		want := ""
		for _, s := range p.all {
			if c.keep(s) {
				want += s
			}
		}
		back, forth := p.walk(t, c.query)
		if back != want {
			t.Errorf("%s, within %s: going back gave %d bytes, want %d:\n%.300s", c.query, c.patience,
				len(back), len(want), back)
		}
		if forth != want {
			t.Errorf("%s, within %s: going forth gave %d bytes, want %d:\n%.300s", c.query, c.patience,
				len(forth), len(want), forth)
		}
	}
	if w := p.window(t, "limit=1"); len(w.Pieces) != 1 || len(w.Pieces[0].Data) != 1 ||
		string(w.Pieces[0].Data) != "\n" {
		t.Errorf("of a piece longer than the window: got %+v, want its end", w.Pieces)
	}
}

// TestSweepLogSearch searches the output of all trials of a sweep: each hit is found once, with its
// trial.
func TestSweepLogSearch(t *testing.T) {
	t.Parallel()
	p := newPrintingSweep(t, 90)
	for query, want := range map[string]int{"q=LINE": 90, "q=LINE&case=true": 0, "q=line+7": 11, "q=of+2": 30,
		"q=of+2&p[i]=1": 0, "q=line&stream=stderr": 18, "q=line&limit=7": 90} {
		var hits []api.SweepHit
		for next := int64(0); ; {
			r := httptest.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("/?%s&from=%d", query, next), nil)
			r.SetPathValue("sweep", p.id)
			out, err := p.handlers.logs.searchSweep(r)
			if err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			hits = append(hits, out.Hits...)
			if out.Next == nil {
				break
			}
			next = *out.Next
		}
		if len(hits) != want {
			t.Errorf("%s: got %d hits, want %d", query, len(hits), want)
		}
		for _, h := range hits {
			if text := p.text[h.Index][h.Stream]; text[h.Offset:h.Offset+int64(len(h.Match))] != h.Match {
				t.Errorf("%s: the hit %+v is not at its place", query, h)
			}
		}
	}
}

// TestWindowEndsInTime requests the output of a trial among that of others, under any time limit: a
// window contains what has been read by then, and reports that there is more. A repeated request
// gets to the end.
func TestWindowEndsInTime(t *testing.T) {
	t.Parallel()
	p := newPrintingSweep(t, 600)
	p.handlers.logs.indexes.timeout = 0
	want := p.text[1]["stdout"] + p.text[1]["stderr"]
	got, calls := "", 0
	for offset := int64(0); len(got) < len(want) && calls < 10_000; calls++ {
		r := httptest.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("/?offset=%d&limit=131072", offset), nil)
		r.SetPathValue("sweep", p.id)
		r.SetPathValue("index", "1")
		w, err := p.handlers.logs.window(r)
		if err != nil {
			t.Fatal(err)
		}
		if w.Offset != offset {
			t.Fatalf("the window at %d begins at %d", offset, w.Offset)
		}
		for _, piece := range w.Pieces {
			got += string(piece.Data)
		}
		offset = w.Next
		p.handlers.logs.indexes.timeout = 2*p.handlers.logs.indexes.timeout + time.Microsecond
	}
	if len(got) != len(want) || calls < 2 {
		t.Errorf("got %d bytes in %d calls, want %d in several", len(got), calls, len(want))
	}
}

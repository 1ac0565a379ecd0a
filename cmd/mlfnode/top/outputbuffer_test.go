package top

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/node/api"
)

// printed is a program's output: pieces of streams in the order in which they were stored.
type printed []api.LogPiece

// window answers as the master does.
func (p printed) window(offset, limit, removed int64) *api.LogWindow {
	w := &api.LogWindow{Offset: max(offset, removed), Ended: true}
	for _, piece := range p {
		w.Total = piece.Offset + int64(len(piece.Data))
	}
	w.Offset = min(w.Offset, w.Total)
	w.Next = w.Offset
	for _, piece := range p {
		from, to := max(w.Offset, piece.Offset), min(offset+limit, piece.Offset+int64(len(piece.Data)))
		if from < to {
			w.Pieces = append(w.Pieces,
				api.LogPiece{Stream: piece.Stream, Offset: from,
					Data: bytes.Clone(piece.Data[from-piece.Offset : to-piece.Offset])})
			w.Next = to
		}
	}
	return w
}

// lines returns the lines of each stream.
func (p printed) lines() map[string][]string {
	text := map[string]string{}
	for _, piece := range p {
		text[piece.Stream] += string(piece.Data)
	}
	all := map[string][]string{}
	for stream, t := range text {
		all[stream] = strings.Split(strings.TrimSuffix(t, "\n"), "\n")
	}
	return all
}

func linesOf(o *output) map[string][]string {
	all := map[string][]string{}
	for _, l := range o.lines {
		all[l.stream] = append(all[l.stream], string(l.text))
	}
	return all
}

// TestOutputIsWhole reads the streams in windows of any size, backwards from the end and then
// forwards: each line appears once.
func TestOutputIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p printed
		offset := int64(0)
		for range rapid.IntRange(1, 30).Draw(t, "pieces") {
			data := []byte(rapid.StringMatching(`[a-c\n]{1,12}`).Draw(t, "data"))
			p = append(p, api.LogPiece{Stream: rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "stream"),
				Offset: offset, Data: data})
			offset += int64(len(data))
		}
		var o output
		at := rapid.Int64Range(0, offset).Draw(t, "from")
		size := func() int64 { return rapid.Int64Range(1, 20).Draw(t, "size") }
		o.replace(p.window(at, size(), 0))
		for o.from > 0 || o.next < o.total {
			if o.from > 0 && (o.next == o.total || rapid.Bool().Draw(t, "earlier")) {
				n := min(size(), o.from)
				o.prependWindow(p.window(o.from-n, n, 0))
			} else {
				o.appendWindow(p.window(o.next, size(), 0))
			}
			for i := range o.lines { // whatever the range, each line is one of the stream's, or its unfinished last one
				l := &o.lines[i]
				if want := p.lines()[l.stream]; !containsPrefix(want, string(l.text)) {
					t.Fatalf("line %q of %s is none of %q", l.text, l.stream, want)
				}
			}
		}
		if got, want := fmt.Sprintf("%q", linesOf(&o)), fmt.Sprintf("%q", p.lines()); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func containsPrefix(all []string, text string) bool {
	for _, s := range all {
		if strings.HasPrefix(s, text) {
			return true
		}
	}
	return false
}

// TestOutputRemoved reads backwards into output that has been removed.
func TestOutputRemoved(t *testing.T) {
	p := printed{{Stream: "stdout", Data: []byte("one\ntwo\nthree\nfour\n")}}
	var o output
	o.replace(p.window(14, 100, 0))
	o.prependWindow(p.window(2, 12, 6)) // the window begins later than requested
	if got := linesOf(&o)["stdout"]; strings.Join(got, " ") != "three four" || o.from != 6 {
		t.Errorf("got %q from %d", got, o.from)
	}
	o.prependWindow(p.window(0, 6, 6))
	if o.first != 6 || o.from != 6 {
		t.Errorf("got that the range begins at %d and there is something from %d, want 6", o.from, o.first)
	}
}

// TestOutputHasABound adds more output than is kept.
func TestOutputHasABound(t *testing.T) {
	var o output
	o.replace(&api.LogWindow{})
	line := bytes.Repeat([]byte("x"), 1023)
	for n := int64(0); n < 2*logKept; {
		data := append(bytes.Clone(line), '\n')
		o.appendWindow(&api.LogWindow{Offset: n, Next: n + 1024, Total: n + 1024,
			Pieces: []api.LogPiece{{Stream: "stdout", Offset: n, Data: data}}})
		n += 1024
		if o.next != n || o.next-o.from > logKept {
			t.Fatalf("the range is %d to %d after %d", o.from, o.next, n)
		}
	}
	progress := bytes.Repeat([]byte("50 %\r"), 10<<10)
	o.replace(&api.LogWindow{Next: int64(len(progress)), Pieces: []api.LogPiece{{Stream: "stdout", Data: progress}}})
	if got := len(o.lines[0].text); got > logLine {
		t.Errorf("a line of %d bytes is kept", got)
	}
}

func TestFound(t *testing.T) {
	for _, tt := range []struct{ line, text, want string }{
		{"an Error, and ERRORS", "error", `["an " "Error" ", and " "ERROR" "S"]`}, {"nothing", "x", `["nothing"]`},
		{"all", "", `["all"]`}, {"İerror", "ERROR", `["İ" "error" ""]`},
	} {
		if got := fmt.Sprintf("%q", found(tt.line, tt.text)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.line, got, tt.want)
		}
	}
}

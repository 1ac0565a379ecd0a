package top

import (
	"bytes"
	"strings"

	"mlfnode/node/api"
)

const (
	logWindow = api.MaxWindow // bytes per request
	logKept   = 2 << 20       // bytes that are kept
	logBehind = 1 << 20       // how many bytes a follower may lag before it skips to the end
	logLine   = 16 << 10      // bytes per line; for a progress bar that overwrites itself, the end is kept
	emptyKept = 1000          // consecutive empty lines that are kept
)

// output is what an attempt has printed, as lines: a range of its bytes that grows at both ends.
type output struct {
	pieces []api.LogPiece
	lines  []outputLine
	// index of the unfinished line of each stream, -1 for none; a stream whose first line is cut
	// has no entry
	open       map[string]int
	empty      int   // consecutive empty lines at the end
	first      int64 // everything before it has been removed
	from, next int64 // the range
	total      int64
	ended      bool
	cut        int64
	gone       api.Gone
	known      bool
}

// outputLine is one line of a stream.
type outputLine struct {
	stream string
	offset int64
	text   []byte
}

// setTotals records what a window reports about the whole output.
func (o *output) setTotals(w *api.LogWindow) {
	o.total, o.ended, o.cut, o.gone, o.known = w.Total, w.Ended, w.Cut, w.Gone, true
}

// replace replaces the range with a window.
func (o *output) replace(w *api.LogWindow) {
	o.setTotals(w)
	o.pieces, o.from, o.next = w.Pieces, w.Offset, w.Next
	o.rebuild()
}

// appendWindow appends a window to the range. It reports false if the window does not follow the
// range.
func (o *output) appendWindow(w *api.LogWindow) bool {
	if w.Offset < o.next || w.Next <= o.next {
		o.setTotals(w)
		return false
	}
	o.setTotals(w)
	o.next = w.Next
	o.pieces = append(o.pieces, w.Pieces...)
	if o.next-o.from <= logKept {
		for i := range w.Pieces {
			o.addPiece(&w.Pieces[i])
		}
		return true
	}
	for len(o.pieces) > 1 && o.next-o.pieces[0].Offset > logKept*3/4 {
		o.pieces = o.pieces[1:]
	}
	o.from = o.pieces[0].Offset
	o.rebuild()
	return true
}

// prependWindow puts a window before the range. If the beginning of the output has been removed,
// the window begins later than requested and may overlap the range.
func (o *output) prependWindow(w *api.LogWindow) {
	o.setTotals(w)
	if w.Offset >= o.from {
		o.first = o.from
		return
	}
	var before []api.LogPiece
	for _, p := range w.Pieces {
		if p.Offset < o.from {
			p.Data = p.Data[:min(int64(len(p.Data)), o.from-p.Offset)]
			before = append(before, p)
		}
	}
	o.pieces, o.from = append(before, o.pieces...), w.Offset
	for len(o.pieces) > 1 && o.next-o.from > logKept {
		last := o.pieces[len(o.pieces)-1]
		o.pieces, o.next = o.pieces[:len(o.pieces)-1], last.Offset
	}
	o.rebuild()
}

func (o *output) rebuild() {
	o.lines, o.open, o.empty = nil, nil, 0
	for i := range o.pieces {
		o.addPiece(&o.pieces[i])
	}
}

// addPiece splits a piece into lines. Of many consecutive empty lines it keeps only some. If the
// range does not begin with the output, it begins within a line, and the rest of that line is left
// out.
func (o *output) addPiece(p *api.LogPiece) {
	if o.open == nil {
		o.open = map[string]int{}
	}
	at, seen := o.open[p.Stream]
	skip := !seen && o.from > 0
	if !seen {
		at = -1
	}
	offset, data := p.Offset, p.Data
	for len(data) > 0 {
		text, rest, ended := bytes.Cut(data, []byte("\n"))
		switch {
		case skip && !ended:
			return // the line continues; the stream stays unseen
		case skip:
			skip = false
		case at < 0 && ended && len(text) == 0 && o.empty >= emptyKept:
		default:
			if o.empty++; len(text) > 0 {
				o.empty = 0
			}
			if at < 0 {
				at = len(o.lines)
				o.lines = append(o.lines, outputLine{stream: p.Stream, offset: offset})
			}
			l := &o.lines[at]
			if l.text = append(l.text, text...); len(l.text) > logLine {
				l.text = bytes.Clone(l.text[len(l.text)-logLine/2:])
			}
		}
		if ended {
			at = -1
		}
		offset += int64(len(data) - len(rest))
		data = rest
	}
	o.open[p.Stream] = at
}

// lineAt returns the index of the stream's line that contains an offset; an empty stream matches
// any.
func (o *output) lineAt(offset int64, stream string) int {
	for i := len(o.lines) - 1; i >= 0; i-- {
		if l := &o.lines[i]; l.offset <= offset && (stream == "" || l.stream == stream) {
			return i
		}
	}
	return 0
}

// found splits a line at the occurrences of a text, ignoring case: it returns the text between the
// hits and the hits, alternately.
func found(line, text string) []string {
	if text == "" {
		return []string{line}
	}
	var out []string
	low, want := lower(line), lower(text)
	for {
		i := strings.Index(low, want)
		if i < 0 {
			return append(out, line)
		}
		out = append(out, line[:i], line[i:i+len(want)])
		line, low = line[i+len(want):], low[i+len(want):]
	}
}

// lower converts only A to Z, so that offsets stay the same; the master's search does the same.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

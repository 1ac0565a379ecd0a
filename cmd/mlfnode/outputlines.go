package main

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

const (
	// longestLine is where a line without an end is cut, or before that, where it goes back to its start.
	longestLine = 8 << 10
	// lingering is how long the start of a line waits for its rest.
	lingering = 2 * time.Second
)

// lines turns pieces of output into whole lines, each with its trial in front. Lines of different trials never mix.
type lines struct {
	sweep  grid.SweepID
	colour bool
	emit   func(line string)
	open   map[strand]*partial
}

type strand struct{ run, stream string }

// partial is a line that has not ended.
type partial struct {
	index int64
	text  []byte
	since time.Time
}

func newLines(id grid.SweepID, colour bool, emit func(string)) *lines {
	return &lines{sweep: id, colour: colour, emit: emit, open: map[strand]*partial{}}
}

func (l *lines) add(o *api.Output, now time.Time) {
	key := strand{o.Run, o.Stream}
	p := l.open[key]
	if p == nil {
		p = &partial{index: o.Index}
		l.open[key] = p
	}
	p.text, p.since = append(p.text, o.Data...), now
	for {
		i := bytes.IndexByte(p.text, '\n')
		if i < 0 && len(p.text) < longestLine {
			break
		}
		if i < 0 || i > longestLine {
			n := longestLine
			if cr := bytes.LastIndexByte(p.text[:n], '\r'); cr > 0 { // between two states of a progress bar
				n = cr
			}
			l.put(key, p.index, p.text[:n])
			p.text = p.text[n:]
			continue
		}
		l.put(key, p.index, p.text[:i])
		p.text = p.text[i+1:]
	}
	if len(p.text) == 0 {
		delete(l.open, key)
	}
}

// linger shows starts of lines whose rest does not come.
func (l *lines) linger(now time.Time) {
	for key, p := range l.open {
		if now.Sub(p.since) > lingering {
			l.put(key, p.index, p.text)
			delete(l.open, key)
		}
	}
}

// end shows all that is left.
func (l *lines) end() { l.linger(time.Now().Add(2 * lingering)) }

func (l *lines) put(key strand, index int64, text []byte) {
	mark := "|"
	switch key.stream {
	case "stderr":
		mark = "!"
	case "setup":
		mark = "setup |"
	}
	prefix := fmt.Sprintf("%s/%d %s ", l.sweep, index, mark)
	if l.colour {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", 31+(index%6+6)%6, prefix)
	}
	l.emit(prefix + sanitize(text))
}

// writeLines is an emit function that prints to w.
func writeLines(w io.Writer) func(string) {
	return func(line string) { fmt.Fprintln(w, line) }
}

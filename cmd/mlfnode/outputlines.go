package main

import (
	"bytes"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

const (
	// longestLine is where a line without an end is split, or earlier at a carriage return.
	longestLine = 8 << 10
	// lineWait is how long the start of a line waits for its rest.
	lineWait = 2 * time.Second
)

// lineWriter turns pieces of output into whole lines, each prefixed with its trial. Lines of
// different trials never mix.
type lineWriter struct {
	sweep  grid.SweepID
	colour bool
	emit   func(line string)
	open   map[lineKey]*partial
}

type lineKey struct{ run, stream string }

// partial is a line that has not ended.
type partial struct {
	index int64
	text  []byte
	since time.Time
}

func newLineWriter(id grid.SweepID, colour bool, emit func(string)) *lineWriter {
	return &lineWriter{sweep: id, colour: colour, emit: emit, open: map[lineKey]*partial{}}
}

func (l *lineWriter) write(o *api.Output, now time.Time) {
	key := lineKey{o.Run, o.Stream}
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
			if cr := bytes.LastIndexByte(p.text[:n], '\r'); cr > 0 { // between two updates of a progress bar
				n = cr
			}
			l.emitLine(key, p.index, p.text[:n])
			p.text = p.text[n:]
			continue
		}
		l.emitLine(key, p.index, p.text[:i])
		p.text = p.text[i+1:]
	}
	if len(p.text) == 0 {
		delete(l.open, key)
	}
}

// flushStale shows unfinished lines that have waited too long for their rest.
func (l *lineWriter) flushStale(now time.Time) {
	for key, p := range l.open {
		if now.Sub(p.since) > lineWait {
			l.emitLine(key, p.index, p.text)
			delete(l.open, key)
		}
	}
}

// flush shows everything that is left.
func (l *lineWriter) flush() { l.flushStale(time.Now().Add(2 * lineWait)) }

func (l *lineWriter) emitLine(key lineKey, index int64, text []byte) {
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

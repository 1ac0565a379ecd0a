package executor

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// Sink stores what an attempt prints in the attempt's files, as much as its OutputLimit leaves room for, and knows the rest by its
// size and its end. A file that can't be written, as on a full disk, is waited for before its output is cut.
type Sink struct {
	log   *slog.Logger
	stall time.Duration // how long a file is waited for

	streams [2]sunk      // Stdout and Stderr; when both have one file the first
	room    int64        // bytes that are still stored
	limited bool         // room counts
	cut     int64        // bytes that are not stored; after the first one none is
	seen    atomic.Int64 // bytes that the program has written
	stalled time.Time    // when the files could first not be written; zero while they can
	lost    error        // why output is not stored that the limit has room for
}

// sunk is one stream of a Sink.
type sunk struct {
	file *os.File
	kept int64
	cut  int64
	tail []byte // the end of what was cut
}

const (
	// stallLook is the pause between tries to write a file that can't be written.
	stallLook = 100 * time.Millisecond
	// tailSize is how much of the end of cut output is kept, to find the last lines or a last metric in.
	tailSize = 32 << 10
)

// StallTime is how long an attempt waits for a file that can't be written, as on a full disk, before its output is cut.
const StallTime = 10 * time.Second

// NewSink makes a sink for the files of an attempt. Stall is how long it waits for a file that can't be written.
func NewSink(a *Attempt, log *slog.Logger, stall time.Duration) *Sink {
	s := &Sink{log: log, stall: stall, room: a.OutputLimit, limited: a.OutputLimit > 0}
	s.streams[0].file, s.streams[1].file = a.Stdout, a.Stderr
	return s
}

// Store takes what was printed on a stream: 0 is Stdout, 1 is Stderr. Only one call may be made at a time.
func (s *Sink) Store(stream int, b []byte) {
	s.seen.Add(int64(len(b)))
	to := &s.streams[stream]
	if s.cut == 0 {
		n := len(b)
		if s.limited {
			n = int(min(int64(n), s.room))
		}
		n = s.write(to.file, b[:n])
		s.room -= int64(n)
		to.kept += int64(n)
		b = b[n:]
	}
	s.cut += int64(len(b))
	to.cut += int64(len(b))
	if to.tail = append(to.tail, b[max(0, len(b)-tailSize):]...); len(to.tail) > 2*tailSize {
		to.tail = append(to.tail[:0], to.tail[len(to.tail)-tailSize:]...)
	}
}

// Resume counts what an earlier sink has stored of the streams.
func (s *Sink) Resume(kept [2]int64) {
	for i, n := range kept {
		s.streams[i].kept = n
		s.room -= n
	}
	s.room = max(s.room, 0)
}

// Seen is how many bytes the program has written. It may be called at any time.
func (s *Sink) Seen() int64 { return s.seen.Load() }

// write writes b and returns how much of it was written: less than all where that is not possible for too long.
func (s *Sink) write(f *os.File, b []byte) (written int) {
	for len(b) > written {
		n, err := f.Write(b[written:])
		written += n
		if err == nil {
			s.stalled = time.Time{}
		} else if !s.hold(err) {
			break
		}
	}
	return written
}

// hold waits before another try to write a file, for as long as the sink waits. The end of the program changes nothing: what it has
// printed is waited for like the rest.
func (s *Sink) hold(err error) bool {
	now := time.Now()
	switch {
	case s.stalled.IsZero():
		s.stalled = now
		s.log.Warn("output can't be written; the attempt waits", "err", err)
	case now.Sub(s.stalled) > s.stall:
		s.lost = err
		s.log.Warn("output can't be written and is cut", "err", err)
		return false
	}
	_, _ = unix.Poll(nil, int(stallLook.Milliseconds())) // an early return is an early try
	return true
}

// lastWords is the end of what was cut: all of it, or the last whole lines.
func (s *sunk) lastWords() string {
	tail := s.tail[max(0, len(s.tail)-tailSize):]
	if int64(len(tail)) < s.cut {
		tail = tail[max(0, bytes.IndexByte(tail, '\n')):]
	}
	return string(tail)
}

// Conclude tells the outcome what was cut. An attempt whose output could not be stored is the node's failure, whatever the program
// itself came to: it runs again where the output can be kept. What stopped it from outside remains the reason.
func (s *Sink) Conclude(o *Outcome) {
	if o.Cut = s.cut; s.cut > 0 {
		for i := range s.streams {
			o.Kept[i], o.Tail[i] = s.streams[i].kept, s.streams[i].lastWords()
		}
	}
	if s.lost == nil || o.Class != grid.ClassNone && grid.FailureOf(o.Class).Owner != grid.OwnerTrial {
		return
	}
	reason := "its output could not be stored: " + s.lost.Error()
	var bare *os.PathError
	if errors.As(s.lost, &bare) {
		reason = "its output could not be stored: " + bare.Err.Error()
	}
	if o.Reason != "" {
		reason += " (" + o.Reason + ")"
	}
	o.Class, o.Reason = grid.ClassNode, reason
}

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

// Sink stores what an attempt prints in the attempt's files, up to its OutputLimit, and keeps the
// size and the end of the rest. It retries writing to a file that can't be written, as on a full
// disk, before it cuts the output.
type Sink struct {
	log          *slog.Logger
	stallTimeout time.Duration // how long to wait for a file

	streams      [2]sinkStream // Stdout and Stderr; the first if they share one file
	remaining    int64         // bytes that may still be stored
	limited      bool          // remaining is used
	cut          int64         // bytes not stored; after the first one none is
	written      atomic.Int64  // bytes that the program has written
	stalledSince time.Time     // since when the files can't be written; zero while they can
	storeErr     error         // why output within the limit was not stored
}

// sinkStream is one stream of a Sink.
type sinkStream struct {
	file *os.File
	kept int64
	cut  int64
	tail []byte // the end of what was cut
}

const (
	// stallRetry is the pause between attempts to write a file that can't be written.
	stallRetry = 100 * time.Millisecond
	// tailSize is how much of the end of cut output is kept, to find the last lines or a last
	// metric in.
	tailSize = 32 << 10
)

// StallTimeout is how long an attempt waits for a file that can't be written, as on a full disk,
// before its output is cut.
const StallTimeout = 10 * time.Second

// NewSink returns a sink for the files of an attempt. stall is how long it waits for a file that
// can't be written.
func NewSink(a *Attempt, log *slog.Logger, stall time.Duration) *Sink {
	s := &Sink{log: log, stallTimeout: stall, remaining: a.OutputLimit, limited: a.OutputLimit > 0}
	s.streams[0].file, s.streams[1].file = a.Stdout, a.Stderr
	return s
}

// Store stores what was printed on a stream: 0 is Stdout, 1 is Stderr. Calls must not overlap.
func (s *Sink) Store(stream int, b []byte) {
	s.written.Add(int64(len(b)))
	to := &s.streams[stream]
	if s.cut == 0 {
		n := len(b)
		if s.limited {
			n = int(min(int64(n), s.remaining))
		}
		n = s.write(to.file, b[:n])
		s.remaining -= int64(n)
		to.kept += int64(n)
		b = b[n:]
	}
	s.cut += int64(len(b))
	to.cut += int64(len(b))
	if to.tail = append(to.tail, b[max(0, len(b)-tailSize):]...); len(to.tail) > 2*tailSize {
		to.tail = append(to.tail[:0], to.tail[len(to.tail)-tailSize:]...)
	}
}

// Resume accounts for what an earlier sink has stored of the streams.
func (s *Sink) Resume(kept [2]int64) {
	for i, n := range kept {
		s.streams[i].kept = n
		s.remaining -= n
	}
	s.remaining = max(s.remaining, 0)
}

// Written returns how many bytes the program has written. It may be called at any time.
func (s *Sink) Written() int64 { return s.written.Load() }

// write writes b and returns how much was written, which is less than all if writing was impossible
// for too long.
func (s *Sink) write(f *os.File, b []byte) (written int) {
	for len(b) > written {
		n, err := f.Write(b[written:])
		written += n
		if err == nil {
			s.stalledSince = time.Time{}
		} else if !s.retry(err) {
			break
		}
	}
	return written
}

// retry pauses before another attempt to write a file, and reports false once the sink has waited
// long enough. The end of the program changes nothing: what it has printed is retried like the
// rest.
func (s *Sink) retry(err error) bool {
	now := time.Now()
	switch {
	case s.stalledSince.IsZero():
		s.stalledSince = now
		s.log.Warn("output can't be written; the attempt waits", "err", err)
	case now.Sub(s.stalledSince) > s.stallTimeout:
		s.storeErr = err
		s.log.Warn("output can't be written and is cut", "err", err)
		return false
	}
	_, _ = unix.Poll(nil, int(stallRetry.Milliseconds())) // an early return means an early retry
	return true
}

// lastLines returns the end of what was cut: all of it, or the last whole lines.
func (s *sinkStream) lastLines() string {
	tail := s.tail[max(0, len(s.tail)-tailSize):]
	if int64(len(tail)) < s.cut {
		tail = tail[max(0, bytes.IndexByte(tail, '\n')):]
	}
	return string(tail)
}

// Conclude records in the outcome what was cut. An attempt whose output could not be stored is the
// node's failure, however the program itself ended: it runs again where the output can be kept. The
// reason of a stop from outside takes precedence.
func (s *Sink) Conclude(o *Outcome) {
	if o.Cut = s.cut; s.cut > 0 {
		for i := range s.streams {
			o.Kept[i], o.Tail[i] = s.streams[i].kept, s.streams[i].lastLines()
		}
	}
	if s.storeErr == nil || o.Class != grid.ClassNone && grid.FailureOf(o.Class).Owner != grid.OwnerTrial {
		return
	}
	reason := "its output could not be stored: " + s.storeErr.Error()
	var bare *os.PathError
	if errors.As(s.storeErr, &bare) {
		reason = "its output could not be stored: " + bare.Err.Error()
	}
	if o.Reason != "" {
		reason += " (" + o.Reason + ")"
	}
	o.Class, o.Reason = grid.ClassNode, reason
}

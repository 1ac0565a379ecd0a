package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// uploadNoticeAfter is how long an upload runs before its progress is shown: most are done
	// immediately.
	uploadNoticeAfter = 2 * time.Second
	// uploadRefresh is the shortest time between two updates of the line on a terminal.
	uploadRefresh = 200 * time.Millisecond
)

// uploadProgress reads a packed project for an upload to the master, and shows how much of it was
// read: on a terminal in a line that changes, elsewhere in one line at the beginning.
type uploadProgress struct {
	r        io.Reader
	w        io.Writer
	terminal bool
	total    int64 // bytes
	now      func() time.Time

	mu    sync.Mutex // the transport may read on after the answer has come
	began time.Time
	last  time.Time // of the line, zero before the first
	sent  int64
	done  bool
}

// Read implements io.Reader.
func (s *uploadProgress) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent += int64(n); !s.done {
		s.showLocked(s.now())
	}
	return n, err
}

func (s *uploadProgress) showLocked(now time.Time) {
	if s.began.IsZero() {
		s.began = now
	}
	switch shown := !s.last.IsZero(); {
	case now.Sub(s.began) < uploadNoticeAfter, shown && !s.terminal, shown && now.Sub(s.last) < uploadRefresh:
		return
	case s.terminal:
		fmt.Fprintf(s.w, "\r\x1b[Ksending the files: %s of %s", humanize.Bytes(uint64(s.sent)),
			humanize.Bytes(uint64(s.total)))
	default:
		fmt.Fprintf(s.w, "sending the files, %s\n", humanize.Bytes(uint64(s.total)))
	}
	s.last = now
}

// clear removes the line from the terminal.
func (s *uploadProgress) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done = true; s.terminal && !s.last.IsZero() {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
}

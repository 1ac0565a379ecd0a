package node

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// stallLimit is how long a disk may take for a small synced write. A slow one takes half a second.
const stallLimit = 5 * time.Second

// stall detects a disk that does not answer. The zero value is ready for use.
type stall struct {
	mu      sync.Mutex
	writing chan struct{} // closed when the write in progress has ended; nil if there is none
	logged  bool          // that the disk does not answer
}

// stalled reports whether a synced write to a folder takes longer than stallLimit. At most one is
// in progress: it returns when the disk answers.
func (s *stall) stalled(dir string, log *slog.Logger) bool {
	s.mu.Lock()
	writing := s.writing
	if writing == nil {
		writing = make(chan struct{})
		s.writing = writing
		go s.write(dir, writing, log)
	}
	s.mu.Unlock()
	limit := time.NewTimer(stallLimit)
	defer limit.Stop()
	select {
	case <-writing:
		return false
	case <-limit.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing == writing && !s.logged {
		s.logged = true
		log.Warn("the disk of the state folder does not answer; the node waits for it", "folder", dir)
	}
	return s.writing == writing
}

// write writes a small file, syncs it and removes it. It returns when the disk has answered, even
// with an error.
func (s *stall) write(dir string, ended chan struct{}, log *slog.Logger) {
	if f, err := os.CreateTemp(dir, ".stall-*"); err == nil {
		_, _ = f.WriteString("x") // an error is an answer, too
		_ = f.Sync()
		f.Close()
		_ = os.Remove(f.Name())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = nil
	if s.logged {
		s.logged = false
		log.Info("the disk of the state folder answers again", "folder", dir)
	}
	close(ended)
}

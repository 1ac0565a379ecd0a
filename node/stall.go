package node

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// stallLimit is how long a disk may take for a small write that is synced. Slow ones take half a second.
const stallLimit = 5 * time.Second

// stall finds out whether a disk answers. The zero value is ready for use.
type stall struct {
	mu    sync.Mutex
	under chan struct{} // closed when the write that is under way has ended; nil while there is none
	told  bool          // it was said that the disk does not answer
}

// stalled reports whether a synced write to a folder takes longer than stallLimit. No more than one is under way: it comes back when the disk
// does.
func (s *stall) stalled(dir string, log *slog.Logger) bool {
	s.mu.Lock()
	under := s.under
	if under == nil {
		under = make(chan struct{})
		s.under = under
		go s.write(dir, under, log)
	}
	s.mu.Unlock()
	limit := time.NewTimer(stallLimit)
	defer limit.Stop()
	select {
	case <-under:
		return false
	case <-limit.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == under && !s.told {
		s.told = true
		log.Warn("the disk of the state folder does not answer; the node waits for it", "folder", dir)
	}
	return s.under == under
}

// write writes a small file, syncs it and removes it. It ends when the disk has answered, were it with an error.
func (s *stall) write(dir string, ended chan struct{}, log *slog.Logger) {
	if f, err := os.CreateTemp(dir, ".stall-*"); err == nil {
		_, _ = f.WriteString("x") // an error is an answer, too
		_ = f.Sync()
		f.Close()
		_ = os.Remove(f.Name())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under = nil
	if s.told {
		s.told = false
		log.Info("the disk of the state folder answers again", "folder", dir)
	}
	close(ended)
}

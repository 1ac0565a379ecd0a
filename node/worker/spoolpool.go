package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// maxSpools bounds the spools, each of which holds six files open: attempts wait while so many have
// reports on their way.
const maxSpools = 512

// spoolPool is the pool of spools: as many as attempts run, and some more whose reports are on
// their way.
type spoolPool struct {
	dir   string
	taken chan struct{} // a token for each spool that is taken

	mu   sync.Mutex
	free []*spool
	next int
}

// newSpoolPool makes a pool for this many attempts at one time.
func newSpoolPool(dir string, attempts int) (*spoolPool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create spool folder: %w", err)
	}
	return &spoolPool{dir: dir, taken: make(chan struct{}, max(maxSpools, 2*attempts))}, nil
}

// acquire returns a clean spool. It waits while too many are taken, until ctx ends.
func (p *spoolPool) acquire(ctx context.Context) (*spool, error) {
	select {
	case p.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.next++
	dir := filepath.Join(p.dir, strconv.Itoa(p.next))
	p.mu.Unlock()
	s, err := openSpool(dir)
	if err != nil {
		<-p.taken
	}
	return s, err
}

// releaseUntouched takes back a spool that needs no cleaning. Its manifest stays: after a crash the
// attempt may be reported as lost, which the fold ignores.
func (p *spoolPool) releaseUntouched(s *spool) {
	p.mu.Lock()
	p.free = append(p.free, s)
	p.mu.Unlock()
	<-p.taken
}

// release takes a spool back. One that can't be cleaned, or that processes may still write to, is
// removed.
func (p *spoolPool) release(s *spool, reuse bool) {
	if reuse && s.reset() == nil {
		p.releaseUntouched(s)
		return
	}
	s.remove()
	<-p.taken
}

// abandon leaves a spool to processes that this node may not end. The next start removes it.
func (p *spoolPool) abandon(s *spool, adopted bool) {
	_ = s.manifest.Truncate(0) // otherwise the next start reports the attempt again, which does no harm
	s.close()
	if !adopted { // adopted spools are not counted
		<-p.taken
	}
}

func (p *spoolPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.free {
		s.remove()
	}
	p.free = nil
}

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
	"mlfnode/projects"
)

// The files of a spool:
//
//	attempt.json   manifest: which attempt the folder belongs to; empty while it belongs to none
//	stdout stderr  what the program wrote, through its executor
//	work/          the attempt's folder
//	out/           $MLF_OUT
//	metrics        $MLF_METRICS, made by the program
//	node/          state of the node that the program starts for sweeps of its own
//	outcome.json   how it ended, written by its shim when no agent was there
type spool struct {
	dir, work, out, metrics, record string // paths of the above

	manifest  *os.File
	stdout    *os.File
	stderr    *os.File
	folders   [3]*os.File // work, out and dir itself, held open to read their times
	times     [3]unix.Timespec
	cleanedAt time.Time // when the folders were last known to be empty
	variables [3]string // the environment variables that name them
	line      []byte    // buffer for the manifest's line
}

// newSpool names the files of a spool. Plain concatenation is enough: dir is clean.
func newSpool(dir string) *spool {
	s := &spool{
		dir: dir, work: dir + "/work", out: dir + "/out", metrics: dir + "/metrics", record: dir + "/outcome.json",
	}
	s.variables = [3]string{"PWD=" + s.work, "MLF_OUT=" + s.out, "MLF_METRICS=" + s.metrics}
	return s
}

// manifest is what a spool says of its attempt, for the next start after a crash.
type manifest struct {
	Sweep   grid.SweepID `json:"sweep"`
	Index   int64        `json:"index,omitempty"`
	Attempt int          `json:"attempt,omitempty"`
	Run     string       `json:"run,omitempty"`
	Started int64        `json:"started,omitempty"` // microseconds since 1970
	Result  *grid.Result `json:"result,omitempty"`  // once the attempt has ended
	Cut     *cutOutput   `json:"cut,omitempty"`     // of the output of an attempt that has ended
	// the lease under which it runs, for an attempt that outlives its agent
	Lease  *leaseRecord `json:"lease,omitempty"`
	Boot   string       `json:"boot,omitempty"`   // the start of the machine in which it ran
	Synced bool         `json:"synced,omitempty"` // the result is on the disk with all that belongs to it

	Allocation *allocator.Allocation `json:"allocation,omitempty"` // what it holds of the node
	Image      string                `json:"image,omitempty"`      // the pinned reference of its image
}

func openSpool(dir string) (*spool, error) {
	s := newSpool(dir)
	for _, d := range []string{dir, s.work, s.out} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("create spool: %w", err)
		}
	}
	const appending = os.O_CREATE | os.O_RDWR | os.O_APPEND
	files := []struct {
		name string
		flag int
		file **os.File
	}{
		{"attempt.json", os.O_CREATE | os.O_RDWR, &s.manifest}, {"stdout", appending, &s.stdout},
		{"stderr", appending, &s.stderr},
		{"work", os.O_RDONLY, &s.folders[0]}, {"out", os.O_RDONLY, &s.folders[1]}, {".", os.O_RDONLY, &s.folders[2]},
	}
	for _, f := range files {
		file, err := os.OpenFile(filepath.Join(dir, f.name), f.flag, 0o600)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("create spool: %w", err)
		}
		*f.file = file
	}
	return s, s.recordTimes()
}

// recordTimes remembers the times of the empty folders.
func (s *spool) recordTimes() error {
	s.cleanedAt = time.Now()
	for i, f := range s.folders {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("read the times of the spool: %w", err)
		}
		s.times[i] = st.Mtim
	}
	return nil
}

// clockTick is more than the resolution of the clock that stamps folders, which is one kernel tick.
// A change within one tick of the recorded time can't be seen in the times.
const clockTick = 20 * time.Millisecond

// writeManifest writes the manifest; from here on the folder belongs to the attempt. The manifest
// is the file's first line: what a longer one has left behind it does not count.
func (s *spool) writeManifest(m *manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	return s.writeManifestLine(append(b, '\n'))
}

func (s *spool) writeManifestLine(line []byte) error {
	if _, err := s.manifest.WriteAt(line, 0); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// manifestTemplate is the part of the manifest that all attempts of an assignment share, encoded
// once: a sweep of short trials writes thousands of manifests a second.
type manifestTemplate struct {
	shared  manifest // without what one attempt adds
	encoded []byte   // shared, without the closing brace
}

func newManifestTemplate(shared manifest) (*manifestTemplate, error) {
	b, err := json.Marshal(shared)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return &manifestTemplate{shared, b[:len(b)-1]}, nil
}

// manifest returns the manifest of an attempt.
func (t *manifestTemplate) manifest(a *attempt) *manifest {
	m := t.shared
	m.Index, m.Attempt, m.Run, m.Started, m.Image = a.id.Index, a.number, a.run, a.started.UnixMicro(), a.imagePin()
	return &m
}

// write is spool.writeManifest for an attempt that starts.
func (t *manifestTemplate) write(s *spool, a *attempt) error {
	b := append(s.line[:0], t.encoded...)
	b = strconv.AppendInt(append(b, `,"index":`...), a.id.Index, 10)
	b = strconv.AppendInt(append(b, `,"attempt":`...), int64(a.number), 10)
	b = strconv.AppendQuote(append(b, `,"run":`...), a.run) // a node's name and numbers, which Go and JSON quote alike
	b = strconv.AppendInt(append(b, `,"started":`...), a.started.UnixMicro(), 10)
	if image := a.imagePin(); image != "" {
		b = strconv.AppendQuote(append(b, `,"image":`...), image) // ASCII, like every reference of an image
	}
	s.line = append(b, "}\n"...)
	return s.writeManifestLine(s.line)
}

// isUntouched reports whether the attempt that began at this time has left nothing in the spool.
func (s *spool) isUntouched(began time.Time) bool {
	for _, f := range []*os.File{s.stdout, s.stderr} {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || st.Size > 0 {
			return false
		}
	}
	for i, f := range s.folders {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || st.Mtim != s.times[i] {
			return false
		}
	}
	if began.Sub(s.cleanedAt) >= clockTick {
		return true
	}
	// The times were recorded too recently to tell.
	_, err := os.Lstat(s.metrics)
	return errors.Is(err, fs.ErrNotExist) && isEmpty(s.work) && isEmpty(s.out)
}

func isEmpty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	return len(names) == 0 && errors.Is(err, io.EOF)
}

// reset makes the spool ready for another attempt. The reports of the last one must be stored.
func (s *spool) reset() error {
	for _, f := range []*os.File{s.manifest, s.stdout, s.stderr} {
		info, err := f.Stat()
		if err == nil && info.Size() > 0 {
			err = f.Truncate(0)
		}
		if err != nil {
			return err
		}
	}
	for i, dir := range []string{s.work, s.out} {
		if isEmpty(dir) {
			continue
		}
		if err := errors.Join(projects.RemoveTree(dir), os.Mkdir(dir, 0o700)); err != nil {
			return err
		}
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		s.folders[i].Close()
		s.folders[i] = f
	}
	for _, made := range []string{s.metrics, s.dir + "/node"} {
		if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if err := projects.RemoveTree(made); err != nil {
				return err
			}
		}
	}
	return s.recordTimes()
}

// outputSources returns the files that programs write their output to.
func (s *spool) outputSources() []*outputSource {
	return []*outputSource{{file: s.stdout, stream: streamOut}, {file: s.stderr, stream: streamErr}}
}

func (s *spool) close() {
	for _, f := range []*os.File{s.manifest, s.stdout, s.stderr, s.folders[0], s.folders[1], s.folders[2]} {
		if f != nil {
			f.Close()
		}
	}
}

// remove removes a spool that nobody needs any more.
func (s *spool) remove() {
	s.close()
	_ = projects.RemoveTree(s.dir) // the next start looks at what is left
}

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

package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

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
	spoolPaths

	manifest  *os.File
	stdout    *os.File
	stderr    *os.File
	folders   [3]*os.File // work, out and dir itself, held open to read their times
	times     [3]unix.Timespec
	cleanedAt time.Time // when the folders were last known to be empty
	line      []byte    // buffer for the manifest's line
}

// spoolPaths are the paths of a spool, and the environment variables that name them.
type spoolPaths struct {
	dir, work, out, metrics, record string
	variables                       [3]string
}

// newSpoolPaths names the files of a spool. Plain concatenation is enough: dir is clean.
func newSpoolPaths(dir string) spoolPaths {
	p := spoolPaths{
		dir: dir, work: dir + "/work", out: dir + "/out", metrics: dir + "/metrics", record: dir + "/outcome.json",
	}
	p.variables = [3]string{"PWD=" + p.work, "MLF_OUT=" + p.out, "MLF_METRICS=" + p.metrics}
	return p
}

func openSpool(dir string) (*spool, error) {
	s := &spool{spoolPaths: newSpoolPaths(dir)}
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

package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/projects"
)

// Store keeps the snapshots of a cluster's trials in a folder of the master:
//
//	SWEEP/INDEX/trial.json   the last number, and up to which attempt saved states are known to be bad
//	SWEEP/INDEX/N.json       snapshot N, written when all of its contents are there
//	SWEEP/INDEX/files/HASH   contents
//	SWEEP/INDEX/parts/HASH   contents that are being uploaded
//	.removed/                what is being removed
//
// Its methods may be called concurrently. Those that only read never wait for the disk.
type Store struct{ trialTable }

// trialTable knows what a Store has.
type trialTable struct {
	dir     string
	log     *slog.Logger
	removed removedFolder

	mu     sync.Mutex // never held over I/O
	limit  int64
	bytes  int64 // of contents, and of all that uploads under way may add
	trials map[grid.TrialID]*storedTrial
	onFull func(need int64)
}

// storedTrial is what is stored of a trial. The fields are guarded by trialTable.mu.
type storedTrial struct {
	table *trialTable
	id    grid.TrialID
	dir   string

	// held while the trial's files are changed, except that uploads write their parts without it;
	// taken before trialTable.mu
	diskMu sync.Mutex

	trialFile
	snapshots []*Snapshot      // the oldest first
	files     map[string]int64 // sizes of contents, by hash
	parts     map[string]int64 // sizes of parts: what is there, or all of one that is being sent
	writing   map[string]bool  // contents that are being sent
	discarded bool             // it was discarded
}

// trialFile is the content of trial.json.
type trialFile struct {
	Last int `json:"last"`          // number of the newest snapshot that ever existed
	Bad  int `json:"bad,omitempty"` // what attempts up to this one had in their folders can't be read
}

var _ Remote = (*Store)(nil)

// OpenStore opens the store in dir, and creates it if there is none. It keeps at most limit bytes.
func OpenStore(dir string, limit int64, log *slog.Logger) (*Store, error) {
	s := &Store{trialTable{
		dir: dir, limit: limit, log: log.With("component", "checkpoints"), trials: map[grid.TrialID]*storedTrial{},
		removed: removedFolder{dir: filepath.Join(dir, ".removed")},
	}}
	if err := os.MkdirAll(s.removed.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	for _, name := range found {
		sweep := filepath.Base(filepath.Dir(name))
		index, err := strconv.ParseInt(filepath.Base(name), 10, 64)
		if err != nil || filepath.Dir(name) == s.removed.dir {
			continue
		}
		k := s.newTrial(grid.TrialID{Sweep: grid.SweepID(sweep), Index: index})
		if err := k.read(); err != nil {
			s.log.Warn("a trial's snapshots can't be read and are left alone", "trial", k.id, "err", err)
			continue
		}
		s.trials[k.id] = k
	}
	return s, nil
}

// skippedNumbers is how many snapshot numbers are skipped when the last one is not known: none is
// used twice.
const skippedNumbers = 1000

// folder returns the folder of a trial.
func (t *trialTable) folder(id grid.TrialID) string {
	return filepath.Join(t.dir, string(id.Sweep), strconv.FormatInt(id.Index, 10))
}

// newTrial returns a trial of which nothing is stored.
func (t *trialTable) newTrial(id grid.TrialID) *storedTrial {
	return &storedTrial{
		table: t, id: id, dir: t.folder(id),
		files: map[string]int64{}, parts: map[string]int64{}, writing: map[string]bool{},
	}
}

// lock returns what is stored of a trial, with its diskMu locked.
func (t *trialTable) lock(id grid.TrialID) *storedTrial {
	for {
		t.mu.Lock()
		k := t.trials[id]
		if k == nil {
			k = t.newTrial(id)
			t.trials[id] = k
		}
		t.mu.Unlock()
		k.diskMu.Lock()
		if !k.discarded { // only changed under k.diskMu
			return k
		}
		k.diskMu.Unlock()
	}
}

// ids lists the trials of which something is stored.
func (t *trialTable) ids() []grid.TrialID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.trials))
}

// read loads the snapshots of the trial. Damaged ones are left out individually. Parts that a crash
// has left stay, so that the upload can continue.
func (k *storedTrial) read() error {
	for part, sizes := range map[string]map[string]int64{"files": k.files, "parts": k.parts} {
		contents, err := os.ReadDir(filepath.Join(k.dir, part))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range contents {
			info, err := e.Info()
			if err != nil {
				return err
			}
			sizes[e.Name()] = info.Size()
			k.table.bytes += info.Size()
		}
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	last := 0
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil {
			continue
		}
		last = max(last, n)
		snapshot, path := &Snapshot{}, filepath.Join(k.dir, e.Name())
		err = errors.Join(readJSON(path, snapshot), snapshot.Check(), k.checkContents(snapshot))
		if err != nil || snapshot.Number != n {
			k.table.log.Warn("a snapshot can't be read and is left out", "path", path, "err", err)
			continue
		}
		k.snapshots = append(k.snapshots, snapshot)
	}
	slices.SortFunc(k.snapshots, func(a, b *Snapshot) int { return a.Number - b.Number })
	err = readJSON(filepath.Join(k.dir, "trial.json"), &k.trialFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.table.log.Warn("the number of a trial's last snapshot can't be read", "path", k.dir, "err", err)
		k.trialFile = trialFile{Last: last + skippedNumbers}
	}
	k.Last = max(k.Last, last)
	return nil
}

func readJSON(path string, to any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// checkContents returns an error if a content of the snapshot is missing.
func (k *storedTrial) checkContents(s *Snapshot) error {
	for i := range s.Files {
		f := &s.Files[i]
		if size, ok := k.files[f.Hash]; f.Mode.IsRegular() && (!ok || size != f.Size) {
			return fmt.Errorf("the content of %.60q is not there", f.Path)
		}
	}
	return nil
}

// OnFull sets a func that is called before a snapshot is refused for lack of room, to discard what
// may go.
func (t *trialTable) OnFull(room func(need int64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onFull = room
}

// SetLimit changes how many bytes are kept.
func (t *trialTable) SetLimit(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = bytes
}

// Usage returns the bytes that are kept and their limit.
func (t *trialTable) Usage() (bytes, limit int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes, t.limit
}

// Newest returns the number of the newest snapshot of a trial, 0 for none, and the attempt up to
// which the folders on nodes are known to be bad.
func (t *trialTable) Newest(id grid.TrialID) (number, bad int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.trials[id]
	if k == nil {
		return 0, 0
	}
	if n := len(k.snapshots); n > 0 {
		number = k.snapshots[n-1].Number
	}
	return number, k.Bad
}

// Load implements Remote.
func (s *Store) Load(_ context.Context, id grid.TrialID, number int) (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.trials[id]; k != nil {
		for _, snapshot := range k.snapshots {
			if snapshot.Number == number {
				return snapshot, nil
			}
		}
	}
	return nil, fmt.Errorf("%s has no snapshot %d: %w", id, number, fs.ErrNotExist)
}

// Open implements Remote.
func (s *Store) Open(_ context.Context, id grid.TrialID, hash string) (io.ReadCloser, error) {
	if !IsHash(hash) {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(s.folder(id), "files", hash))
	if err != nil {
		return nil, fmt.Errorf("read a checkpoint's file: %w", err)
	}
	return f, nil
}

// Verify implements Remote.
func (s *Store) Verify(ctx context.Context, id grid.TrialID, hash string) error {
	s.mu.Lock()
	k := s.trials[id]
	s.mu.Unlock()
	if k == nil || !IsHash(hash) {
		return fs.ErrNotExist
	}
	name := filepath.Join(k.dir, "files", hash)
	whole := func() bool {
		found, _, err := hashFile(ctx, name)
		return err == nil && found == hash
	}
	if whole() {
		return nil
	}
	k = s.lock(id)
	defer k.diskMu.Unlock()
	if whole() { // it was sent again meanwhile
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.removed.moveIn(name); err != nil {
		return fmt.Errorf("remove a damaged file of a checkpoint: %w", err)
	}
	var lacking []int
	s.mu.Lock()
	s.bytes -= k.files[hash]
	delete(k.files, hash)
	for _, snapshot := range k.snapshots {
		if k.checkContents(snapshot) != nil {
			lacking = append(lacking, snapshot.Number)
		}
	}
	s.mu.Unlock()
	s.log.Warn("a stored file is damaged; the snapshots that need it are given up",
		"trial", id, "path", name, "snapshots", lacking)
	k.removeSnapshots(lacking)
	return fmt.Errorf("the stored file is damaged: %w", fs.ErrNotExist)
}

// Discard removes all that is stored of a trial. It is gone immediately, and its room is freed by
// PurgeRemoved.
func (s *Store) Discard(id grid.TrialID) error {
	s.mu.Lock()
	k := s.trials[id]
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	k.diskMu.Lock()
	defer k.diskMu.Unlock()
	if k.discarded { // only changed under k.diskMu
		return nil
	}
	if err := s.removed.moveIn(k.dir); err != nil {
		return fmt.Errorf("remove the snapshots of %s: %w", id, err)
	}
	_ = os.Remove(filepath.Dir(k.dir)) // fails while the sweep has other folders
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sizes := range []map[string]int64{k.files, k.parts} {
		for _, size := range sizes {
			s.bytes -= size
		}
	}
	k.discarded = true
	delete(s.trials, id)
	return nil
}

// Sweeps lists the sweeps of which something is stored.
func (t *trialTable) Sweeps() []grid.SweepID {
	var all []grid.SweepID
	for _, id := range t.ids() {
		all = append(all, id.Sweep)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Trials lists the indexes of the trials of a sweep of which something is stored.
func (t *trialTable) Trials(sweep grid.SweepID) []int64 {
	var all []int64
	for _, id := range t.ids() {
		if id.Sweep == sweep {
			all = append(all, id.Index)
		}
	}
	return all
}

// DiscardSweep is Discard for all trials of a sweep.
func (s *Store) DiscardSweep(sweep grid.SweepID) error {
	var errs []error
	for _, index := range s.Trials(sweep) {
		errs = append(errs, s.Discard(grid.TrialID{Sweep: sweep, Index: index}))
	}
	return errors.Join(errs...)
}

// removedFolder has what is to be removed: removing large files takes long, and others wait.
type removedFolder struct {
	dir   string
	count atomic.Int64 // of what was moved there
}

// moveIn moves a file or folder there, if it exists.
func (f *removedFolder) moveIn(path string) error {
	to := filepath.Join(f.dir, fmt.Sprintf("%d-%d", time.Now().UnixNano(), f.count.Add(1)))
	if err := os.Rename(path, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// PurgeRemoved frees the room of what was discarded.
func (t *trialTable) PurgeRemoved() error {
	entries, err := os.ReadDir(t.removed.dir)
	for _, e := range entries {
		err = errors.Join(err, projects.RemoveTree(filepath.Join(t.removed.dir, e.Name())))
	}
	return err
}

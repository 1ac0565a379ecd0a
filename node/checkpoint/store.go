package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/projects"
)

// Store keeps the snapshots of a cluster's trials in a folder of the master:
//
//	SWEEP/INDEX/trial.json   the last number, and up to which attempt saved states are known to be bad
//	SWEEP/INDEX/N.json       snapshot N, written when all of its contents are there
//	SWEEP/INDEX/files/HASH   contents
//	SWEEP/INDEX/parts/HASH   contents that are on their way
//	.removed/                what is being removed
//
// Its methods may be called from many goroutines.
type Store struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	limit   int64
	bytes   int64 // of contents
	trials  map[grid.TrialID]*kept
	removed int // counts what was moved aside
}

// kept is what is stored of a trial.
type kept struct {
	trialFile
	snapshots []*Snapshot      // the oldest first
	files     map[string]int64 // sizes of contents, by hash
	writing   map[string]bool  // contents that somebody sends
}

// trialFile is the content of trial.json.
type trialFile struct {
	Last int `json:"last"`          // number of the newest snapshot that there ever was
	Bad  int `json:"bad,omitempty"` // what attempts up to this one had in their folders can't be read
}

var _ Remote = (*Store)(nil)

const removedFolder = ".removed"

// OpenStore opens the store in dir, and makes it when there is none. It keeps at most limit bytes.
func OpenStore(dir string, limit int64, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, limit: limit, log: log.With("component", "checkpoints"), trials: map[grid.TrialID]*kept{}}
	if err := os.MkdirAll(filepath.Join(dir, removedFolder), 0o700); err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	for _, name := range found {
		sweep := filepath.Base(filepath.Dir(name))
		index, err := strconv.ParseInt(filepath.Base(name), 10, 64)
		if err != nil || sweep == removedFolder {
			continue
		}
		k, err := s.read(name)
		if err != nil {
			s.log.Warn("a trial's snapshots can't be read and are left alone", "trial", sweep+"/"+filepath.Base(name), "err", err)
			continue
		}
		s.trials[grid.TrialID{Sweep: grid.SweepID(sweep), Index: index}] = k
	}
	return s, nil
}

// read loads the snapshots of a trial. Parts that a crash has left stay, for the upload to go on.
func (s *Store) read(dir string) (*kept, error) {
	k := newKept()
	b, err := os.ReadFile(filepath.Join(dir, "trial.json"))
	if err == nil {
		err = json.Unmarshal(b, &k.trialFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		snapshot := &Snapshot{}
		if err == nil {
			err = errors.Join(json.Unmarshal(b, snapshot), snapshot.Check())
		}
		if err != nil || snapshot.Number != n {
			s.log.Warn("a snapshot can't be read and is left out", "path", filepath.Join(dir, e.Name()), "err", err)
			continue
		}
		k.snapshots = append(k.snapshots, snapshot)
		k.Last = max(k.Last, n)
	}
	slices.SortFunc(k.snapshots, func(a, b *Snapshot) int { return a.Number - b.Number })
	for _, part := range []string{"files", "parts"} {
		contents, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range contents {
			info, err := e.Info()
			if err != nil {
				return nil, err
			}
			s.bytes += info.Size()
			if part == "files" {
				k.files[e.Name()] = info.Size()
			}
		}
	}
	return k, nil
}

func newKept() *kept { return &kept{files: map[string]int64{}, writing: map[string]bool{}} }

func (s *Store) folder(id grid.TrialID) string {
	return filepath.Join(s.dir, string(id.Sweep), strconv.FormatInt(id.Index, 10))
}

// SetLimit changes how many bytes are kept.
func (s *Store) SetLimit(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = bytes
}

// Usage gives the bytes that are kept and their limit.
func (s *Store) Usage() (bytes, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.limit
}

// Newest gives the number of the newest snapshot of a trial, 0 for none, and the attempt up to which the folders on nodes are known to
// be bad.
func (s *Store) Newest(id grid.TrialID) (number, bad int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.trials[id]
	if k == nil {
		return 0, 0
	}
	if n := len(k.snapshots); n > 0 {
		number = k.snapshots[n-1].Number
	}
	return number, k.Bad
}

// Offer implements Remote. A snapshot that is stored takes the place of the one before the one that its attempt resumed from.
func (s *Store) Offer(_ context.Context, id grid.TrialID, offered *Snapshot) (number int, missing []Missing, err error) {
	if err := offered.Check(); err != nil {
		return 0, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.trials[id]
	if k == nil {
		k = newKept()
	}
	need := s.bytes
	for i := range offered.Files {
		f := &offered.Files[i]
		if size, ok := k.files[f.Hash]; !f.Mode.IsRegular() || ok && size == f.Size {
			continue
		}
		if slices.ContainsFunc(missing, func(m Missing) bool { return m.Hash == f.Hash }) {
			continue
		}
		m := Missing{Hash: f.Hash, Size: f.Size}
		if info, err := os.Stat(filepath.Join(s.folder(id), "parts", f.Hash)); err == nil {
			m.Have = min(info.Size(), f.Size)
		}
		missing = append(missing, m)
		need += m.Size - m.Have
	}
	if need > s.limit {
		return 0, nil, ErrFull
	}
	s.trials[id] = k
	if len(missing) > 0 {
		return 0, missing, nil
	}
	number, err = s.commitLocked(id, k, offered)
	return number, nil, err
}

// commitLocked stores a snapshot all of whose contents are there: its number first, so that none is used twice.
func (s *Store) commitLocked(id grid.TrialID, k *kept, offered *Snapshot) (int, error) {
	snapshot := *offered
	snapshot.Number = k.Last + 1
	b, err := json.Marshal(&snapshot)
	if err != nil {
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	dir := s.folder(id)
	if err := os.MkdirAll(dir, 0o700); err != nil { // a snapshot of an empty folder
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	if k.Last == 0 {
		if err := errors.Join(durable.SyncFolder(filepath.Dir(dir)), durable.SyncFolder(s.dir)); err != nil {
			return 0, fmt.Errorf("store a snapshot: %w", err)
		}
	}
	meta := k.trialFile
	meta.Last = snapshot.Number
	if err := s.note(dir, meta); err != nil {
		return 0, err
	}
	k.trialFile = meta
	if err := durable.WriteFile(filepath.Join(dir, strconv.Itoa(snapshot.Number)+".json"), b, 0o600); err != nil {
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	k.snapshots = append(k.snapshots, &snapshot)
	s.dropLocked(id, k, k.superseded())
	return snapshot.Number, nil
}

func (s *Store) note(dir string, meta trialFile) error {
	b, err := json.Marshal(meta)
	if err == nil {
		err = durable.WriteFile(filepath.Join(dir, "trial.json"), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store a snapshot: %w", err)
	}
	return nil
}

// superseded picks the snapshots that are not needed beside the newest: all but the one that its attempt resumed from, which is known
// to be good; or, without one, but the one before it: the newest may be torn.
func (k *kept) superseded() []int {
	newest := k.snapshots[len(k.snapshots)-1]
	keep := newest.Resumed
	if !slices.ContainsFunc(k.snapshots, func(s *Snapshot) bool { return s.Number == keep }) {
		keep = 0
		for _, s := range k.snapshots {
			if s != newest {
				keep = s.Number
			}
		}
	}
	var gone []int
	for _, s := range k.snapshots {
		if s.Number != keep && s != newest {
			gone = append(gone, s.Number)
		}
	}
	return gone
}

// dropLocked removes snapshots, the contents that no other one has, and what was left of uploads that were given up.
func (s *Store) dropLocked(id grid.TrialID, k *kept, numbers []int) {
	dir := s.folder(id)
	k.snapshots = slices.DeleteFunc(k.snapshots, func(snapshot *Snapshot) bool { return slices.Contains(numbers, snapshot.Number) })
	used := map[string]bool{}
	for _, snapshot := range k.snapshots {
		for i := range snapshot.Files {
			used[snapshot.Files[i].Hash] = true
		}
	}
	var errs []error
	for _, n := range numbers { // first, so that none is left without its contents
		errs = append(errs, durable.Remove(filepath.Join(dir, strconv.Itoa(n)+".json")))
	}
	for hash, size := range k.files {
		if used[hash] {
			continue
		}
		if err := os.Rename(filepath.Join(dir, "files", hash), s.asideLocked()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		delete(k.files, hash)
		s.bytes -= size
	}
	parts, _ := os.ReadDir(filepath.Join(dir, "parts")) // none are there
	for _, e := range parts {
		info, err := e.Info()
		if err != nil || k.writing[e.Name()] {
			continue
		}
		if err := os.Rename(filepath.Join(dir, "parts", e.Name()), s.asideLocked()); err != nil {
			errs = append(errs, err)
			continue
		}
		s.bytes -= info.Size()
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("an old snapshot could not be removed", "trial", id, "err", err)
	}
}

// Put implements Remote. Nothing counts before all of it is there, on the disk, and has the hash of its name.
func (s *Store) Put(ctx context.Context, id grid.TrialID, m Missing, r io.Reader) error {
	if !IsHash(m.Hash) || m.Size < 0 || m.Have < 0 || m.Have > m.Size {
		return fmt.Errorf("%w: a content is named by its SHA-256, 64 hex digits in lower case", ErrUnfit)
	}
	k, err := s.begin(id, m)
	if err != nil || k == nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(k.writing, m.Hash)
	}()
	parts, files := filepath.Join(s.folder(id), "parts"), filepath.Join(s.folder(id), "files")
	if err := errors.Join(os.MkdirAll(parts, 0o700), os.MkdirAll(files, 0o700)); err != nil {
		return fmt.Errorf("store a checkpoint's file: %w", err)
	}
	part := filepath.Join(parts, m.Hash)
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("store a checkpoint's file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < m.Have {
		return errors.Join(err, errors.New("the upload does not begin where the last one was cut off"))
	}
	s.mu.Lock()
	s.bytes -= info.Size() - m.Have
	s.mu.Unlock()
	if err := errors.Join(f.Truncate(m.Have), seek(f, m.Have)); err != nil {
		return fmt.Errorf("store a checkpoint's file: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(&reader{ctx, r}, m.Size-m.Have+1))
	s.mu.Lock()
	s.bytes += n
	s.mu.Unlock()
	if err = errors.Join(err, f.Sync()); err == nil && m.Have+n == m.Size {
		return s.complete(id, k, m, f, part, filepath.Join(files, m.Hash))
	}
	if err != nil && m.Have+n <= m.Size {
		return fmt.Errorf("store a checkpoint's file: %w", err) // what is there may be gone on with
	}
	return s.forget(part, m.Have+n, ErrChanged)
}

func seek(f *os.File, at int64) error {
	_, err := f.Seek(at, io.SeekStart)
	return err
}

// begin makes the caller the only one to write a content; nil for one that is there.
func (s *Store) begin(id grid.TrialID, m Missing) (*kept, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.trials[id]
	switch {
	case k == nil:
		return nil, fmt.Errorf("%w: the file belongs to no snapshot that was offered", ErrUnfit)
	case k.writing[m.Hash]:
		return nil, errors.New("the file is being sent already")
	case s.bytes+m.Size-m.Have > s.limit:
		return nil, ErrFull
	}
	if _, ok := k.files[m.Hash]; ok {
		return nil, nil
	}
	k.writing[m.Hash] = true
	return k, nil
}

// complete makes a part the content, if its hash is right.
func (s *Store) complete(id grid.TrialID, k *kept, m Missing, f *os.File, part, name string) error {
	sum := sha256.New()
	if err := seek(f, 0); err != nil {
		return err
	}
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("check a checkpoint's file: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != m.Hash {
		return s.forget(part, m.Size, ErrChanged)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trials[id] != k {
		return errors.New("the trial's snapshots were removed meanwhile")
	}
	if err := os.Rename(part, name); err != nil {
		return fmt.Errorf("store a checkpoint's file: %w", err)
	}
	if err := durable.SyncFolder(filepath.Dir(name)); err != nil {
		return err
	}
	k.files[m.Hash] = m.Size
	return nil
}

// forget removes a part that is of no use.
func (s *Store) forget(part string, size int64, why error) error {
	s.mu.Lock()
	s.bytes -= size
	s.mu.Unlock()
	return errors.Join(why, os.Remove(part))
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

// Reject notes that an attempt could not read the state that it went on from: its own snapshots and the one that it resumed from are
// removed, and folders on nodes that it or an earlier attempt had do not count any more. To repeat it changes nothing.
func (s *Store) Reject(id grid.TrialID, attempt, resumed int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.trials[id]
	if k == nil {
		k = newKept()
	}
	if attempt <= k.Bad {
		return nil
	}
	if err := os.MkdirAll(s.folder(id), 0o700); err != nil {
		return fmt.Errorf("reject a snapshot: %w", err)
	}
	meta := k.trialFile
	meta.Bad = attempt
	if err := s.note(s.folder(id), meta); err != nil {
		return err
	}
	k.trialFile, s.trials[id] = meta, k
	var gone []int
	for _, snapshot := range k.snapshots {
		if snapshot.Attempt == attempt || snapshot.Number == resumed {
			gone = append(gone, snapshot.Number)
		}
	}
	s.dropLocked(id, k, gone)
	return nil
}

// Discard removes all that is stored of a trial. It is out of sight at once, and frees its room with Clear.
func (s *Store) Discard(id grid.TrialID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trials[id] == nil {
		return nil
	}
	return s.discardLocked(id)
}

func (s *Store) discardLocked(id grid.TrialID) error {
	aside := s.asideLocked()
	size := folderSize(s.folder(id))
	if err := os.Rename(s.folder(id), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the snapshots of %s: %w", id, err)
	}
	s.bytes -= size
	delete(s.trials, id)
	_ = os.Remove(filepath.Dir(s.folder(id))) // fails while others of the sweep are there
	return nil
}

// asideLocked names a place for what is to be removed: to remove large files takes long, and others wait for the lock.
func (s *Store) asideLocked() string {
	s.removed++
	return filepath.Join(s.dir, removedFolder, fmt.Sprintf("%d-%d", time.Now().UnixNano(), s.removed))
}

func folderSize(dir string) (total int64) {
	for _, part := range []string{"files", "parts"} {
		entries, _ := os.ReadDir(filepath.Join(dir, part)) // none is empty
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				total += info.Size()
			}
		}
	}
	return total
}

// Sweeps lists the sweeps of which something is stored.
func (s *Store) Sweeps() []grid.SweepID {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[grid.SweepID]bool{}
	var all []grid.SweepID
	for id := range s.trials {
		if !seen[id.Sweep] {
			seen[id.Sweep] = true
			all = append(all, id.Sweep)
		}
	}
	return all
}

// DiscardSweep is Discard for all trials of a sweep.
func (s *Store) DiscardSweep(sweep grid.SweepID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id := range s.trials {
		if id.Sweep == sweep {
			errs = append(errs, s.discardLocked(id))
		}
	}
	return errors.Join(errs...)
}

// Clear frees the room of what was discarded.
func (s *Store) Clear() error {
	dir := filepath.Join(s.dir, removedFolder)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, projects.RemoveTree(filepath.Join(dir, e.Name())))
	}
	return err
}

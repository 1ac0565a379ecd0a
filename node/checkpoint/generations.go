package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// lockTrial returns what is stored of a trial, with its diskMu locked.
func (s *Store) lockTrial(id grid.TrialID) *storedTrial {
	for {
		s.mu.Lock()
		k := s.trials[id]
		if k == nil {
			k = newStoredTrial()
			s.trials[id] = k
		}
		s.mu.Unlock()
		k.diskMu.Lock()
		if !k.discarded { // only changed under k.diskMu
			return k
		}
		k.diskMu.Unlock()
	}
}

// Offer implements Remote. A new snapshot replaces one that it supersedes. For a snapshot that
// equals the newest, Offer returns the number of that one.
func (s *Store) Offer(
	_ context.Context, id grid.TrialID, offered *Snapshot,
) (number int, missing []Missing, err error) {
	if err := offered.Check(); err != nil {
		return 0, nil, err
	}
	if err := s.reserveRoom(func() int64 { return missingBytes(s.missingLocked(id, offered)) }, func() {}); err != nil {
		return 0, nil, err
	}
	k := s.lockTrial(id)
	defer k.diskMu.Unlock()
	s.mu.Lock()
	if missing = s.missingLocked(id, offered); len(missing) == 0 {
		number = k.equalsNewest(offered)
	}
	s.mu.Unlock()
	if len(missing) > 0 || number > 0 {
		return number, missing, nil
	}
	number, err = s.commit(id, k, offered)
	return number, nil, err
}

// missingLocked lists the contents that a snapshot lacks.
func (s *Store) missingLocked(id grid.TrialID, offered *Snapshot) (missing []Missing) {
	k := s.trials[id]
	if k == nil {
		k = &storedTrial{}
	}
	seen := map[string]bool{}
	for i := range offered.Files {
		f := &offered.Files[i]
		if size, ok := k.files[f.Hash]; !f.Mode.IsRegular() || seen[f.Hash] || ok && size == f.Size {
			continue
		}
		seen[f.Hash] = true
		m := Missing{Hash: f.Hash, Size: f.Size}
		if !k.writing[f.Hash] {
			m.Have = min(k.parts[f.Hash], f.Size)
		}
		missing = append(missing, m)
	}
	return missing
}

func missingBytes(missing []Missing) (total int64) {
	for i := range missing {
		total += missing[i].Size - missing[i].Have
	}
	return total
}

// reserveRoom calls take, under the lock, once there is room for what need returns. Before it
// returns ErrFull it removes what may go: what belongs to ended sweeps, then the generations before
// the newest.
func (s *Store) reserveRoom(need func() int64, take func()) error {
	for _, free := range []func(need int64){s.requestRoom, s.removeOlder, nil} {
		s.mu.Lock()
		n := need()
		if n == 0 || s.bytes+n <= s.limit {
			take()
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		if free != nil {
			free(n)
			if err := s.PurgeRemoved(); err != nil {
				s.log.Warn("snapshots could not be removed", "err", err)
			}
		}
	}
	return ErrFull
}

func (s *Store) requestRoom(need int64) {
	s.mu.Lock()
	room := s.onFull
	s.mu.Unlock()
	if room != nil {
		room(need)
	}
}

// removeOlder removes the generations before newest ones that were left clean, the oldest first,
// until there is room.
func (s *Store) removeOlder(need int64) {
	oldest := map[grid.TrialID]int64{}
	s.mu.Lock()
	for id, k := range s.trials {
		if len(k.removable()) > 0 {
			oldest[id] = k.snapshots[0].Time
		}
	}
	s.mu.Unlock()
	for _, id := range slices.SortedFunc(
		maps.Keys(oldest), func(a, b grid.TrialID) int { return cmp.Compare(oldest[a], oldest[b]) },
	) {
		if bytes, limit := s.Usage(); bytes+need <= limit {
			return
		}
		k := s.lockTrial(id)
		s.mu.Lock()
		spare := k.removable() // a snapshot may have been stored meanwhile
		s.mu.Unlock()
		s.removeSnapshots(id, k, spare)
		k.diskMu.Unlock()
	}
}

// removable lists the generations before a newest one that was left clean.
func (k *storedTrial) removable() (older []int) {
	if n := len(k.snapshots); n > 1 && k.snapshots[n-1].Clean {
		for _, snapshot := range k.snapshots[:n-1] {
			older = append(older, snapshot.Number)
		}
	}
	return older
}

// equalsNewest returns the number of the newest snapshot if it is the same state, 0 if not.
func (k *storedTrial) equalsNewest(offered *Snapshot) int {
	if len(k.snapshots) == 0 {
		return 0
	}
	newest := k.snapshots[len(k.snapshots)-1]
	same := func(a, b File) bool {
		return a.Path == b.Path && a.Mode == b.Mode && a.Size == b.Size && a.Hash == b.Hash && a.Link == b.Link
	}
	if offered.Clean && !newest.Clean || !slices.EqualFunc(newest.Files, offered.Files, same) {
		return 0
	}
	return newest.Number
}

// commit stores a snapshot whose contents are all there: its number first, so that none is used
// twice. The caller holds k.diskMu.
func (s *Store) commit(id grid.TrialID, k *storedTrial, offered *Snapshot) (int, error) {
	snapshot := *offered
	meta := k.trialFile
	meta.Last++
	snapshot.Number = meta.Last
	b, err := json.Marshal(&snapshot)
	if err != nil {
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	dir := s.folder(id)
	if err := os.MkdirAll(dir, 0o700); err != nil { // a snapshot of an empty folder
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	if meta.Last == 1 {
		if err := errors.Join(durable.SyncFolder(filepath.Dir(dir)), durable.SyncFolder(s.dir)); err != nil {
			return 0, fmt.Errorf("store a snapshot: %w", err)
		}
	}
	if err := s.writeTrialFile(dir, k, meta); err != nil {
		return 0, err
	}
	if err := durable.WriteFile(filepath.Join(dir, strconv.Itoa(snapshot.Number)+".json"), b, 0o600); err != nil {
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	s.mu.Lock()
	k.snapshots = append(k.snapshots, &snapshot)
	gone := k.superseded()
	s.mu.Unlock()
	s.removeSnapshots(id, k, gone)
	return snapshot.Number, nil
}

// writeTrialFile writes trial.json.
func (s *Store) writeTrialFile(dir string, k *storedTrial, meta trialFile) error {
	b, err := json.Marshal(meta)
	if err == nil {
		err = durable.WriteFile(filepath.Join(dir, "trial.json"), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store a snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.trialFile = meta
	return nil
}

// superseded picks the snapshots that are not needed beside the newest: all but one. The one that
// stays was left clean if there is any, since the newest may be torn; of these it is the one that
// the newest comes from, which its attempt could read; or else the last before.
func (k *storedTrial) superseded() (gone []int) {
	newest, older := k.snapshots[len(k.snapshots)-1], k.snapshots[:len(k.snapshots)-1]
	keep, best := 0, 0
	for _, s := range older {
		worth := 0
		if s.Clean {
			worth += 2
		}
		if s.Number == newest.Resumed {
			worth++
		}
		if worth >= best {
			keep, best = s.Number, worth
		}
	}
	for _, s := range older {
		if s.Number != keep {
			gone = append(gone, s.Number)
		}
	}
	return gone
}

// removeSnapshots removes snapshots, the contents that no other one has, and what was left of
// abandoned uploads. The caller holds k.diskMu.
func (s *Store) removeSnapshots(id grid.TrialID, k *storedTrial, numbers []int) {
	dir := s.folder(id)
	s.mu.Lock()
	k.snapshots = slices.DeleteFunc(
		slices.Clone(k.snapshots), func(snapshot *Snapshot) bool { return slices.Contains(numbers, snapshot.Number) },
	)
	used := map[string]bool{}
	for _, snapshot := range k.snapshots {
		for i := range snapshot.Files {
			used[snapshot.Files[i].Hash] = true
		}
	}
	var unused []string
	for hash := range k.files {
		if !used[hash] {
			unused = append(unused, hash)
		}
	}
	var parts []string
	for hash, size := range k.parts {
		if !k.writing[hash] {
			parts = append(parts, hash)
			delete(k.parts, hash)
			s.bytes -= size
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, n := range numbers { // first, so that no snapshot is left without its contents
		errs = append(errs, durable.Remove(filepath.Join(dir, strconv.Itoa(n)+".json")))
	}
	for _, hash := range parts {
		errs = append(errs, s.moveToRemoved(filepath.Join(dir, "parts", hash)))
	}
	for _, hash := range unused {
		if err := s.moveToRemoved(filepath.Join(dir, "files", hash)); err != nil {
			errs = append(errs, err)
			continue
		}
		s.mu.Lock()
		s.bytes -= k.files[hash]
		delete(k.files, hash)
		s.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("an old snapshot could not be removed", "trial", id, "err", err)
	}
}

// moveToRemoved moves a file to where PurgeRemoved removes it.
func (s *Store) moveToRemoved(path string) error {
	if err := os.Rename(path, s.removedPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Reject records that an attempt could not read the state from which it resumed. If that was a
// snapshot, it is removed, and folders on nodes that this or an earlier attempt had no longer
// count. Any other snapshot is judged by an attempt of its own. Reject is idempotent.
func (s *Store) Reject(id grid.TrialID, attempt, resumed int) error {
	k := s.lockTrial(id)
	defer k.diskMu.Unlock()
	meta := k.trialFile
	if attempt <= meta.Bad {
		return nil
	}
	meta.Bad = attempt
	if err := os.MkdirAll(s.folder(id), 0o700); err != nil {
		return fmt.Errorf("reject a snapshot: %w", err)
	}
	if err := s.writeTrialFile(s.folder(id), k, meta); err != nil {
		return err
	}
	s.removeSnapshots(id, k, []int{resumed})
	return nil
}

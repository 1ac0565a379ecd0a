package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// Offer implements Remote. A new snapshot replaces one that it supersedes. For a snapshot that
// equals the newest, Offer returns the number of that one.
func (s *Store) Offer(
	_ context.Context, id grid.TrialID, offered *Snapshot,
) (number int, missing []Missing, err error) {
	if err := offered.Check(); err != nil {
		return 0, nil, err
	}
	if err := s.reserveRoom(func() (total int64) {
		k := s.trials[id]
		if k == nil {
			k = &storedTrial{}
		}
		for _, m := range k.missing(offered) {
			total += m.Size - m.Have
		}
		return total
	}, func() {}); err != nil {
		return 0, nil, err
	}
	k := s.lock(id)
	defer k.diskMu.Unlock()
	s.mu.Lock()
	if missing = k.missing(offered); len(missing) == 0 {
		number = k.equalsNewest(offered)
	}
	s.mu.Unlock()
	if len(missing) > 0 || number > 0 {
		return number, missing, nil
	}
	number, err = k.commit(offered)
	return number, nil, err
}

// missing lists the contents that a snapshot lacks.
func (k *storedTrial) missing(offered *Snapshot) (missing []Missing) {
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

// reserveRoom calls take, under the lock, once there is room for what need returns. Before it
// returns ErrFull it removes what may go: what belongs to ended sweeps, then the generations before
// the newest.
func (s *Store) reserveRoom(need func() int64, take func()) error {
	for try := 0; ; try++ {
		s.mu.Lock()
		n, onFull := need(), s.onFull
		if n == 0 || s.bytes+n <= s.limit {
			take()
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		switch {
		case try == 2:
			return ErrFull
		case try == 1:
			s.removeOlder(n)
		case onFull != nil:
			onFull(n)
		}
		if err := s.PurgeRemoved(); err != nil {
			s.log.Warn("snapshots could not be removed", "err", err)
		}
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
	byTime := func(a, b grid.TrialID) int { return cmp.Compare(oldest[a], oldest[b]) }
	for _, id := range slices.SortedFunc(maps.Keys(oldest), byTime) {
		if bytes, limit := s.Usage(); bytes+need <= limit {
			return
		}
		k := s.lock(id)
		s.mu.Lock()
		spare := k.removable() // a snapshot may have been stored meanwhile
		s.mu.Unlock()
		k.removeSnapshots(spare)
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
// twice. k.diskMu is held.
func (k *storedTrial) commit(offered *Snapshot) (int, error) {
	snapshot := *offered
	meta := k.trialFile
	meta.Last++
	snapshot.Number = meta.Last
	b, err := json.Marshal(&snapshot)
	if err != nil {
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil { // a snapshot of an empty folder
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	if meta.Last == 1 {
		if err := errors.Join(durable.SyncFolder(filepath.Dir(k.dir)), durable.SyncFolder(k.table.dir)); err != nil {
			return 0, fmt.Errorf("store a snapshot: %w", err)
		}
	}
	if err := k.writeTrialFile(meta); err != nil {
		return 0, err
	}
	if err := durable.WriteFile(filepath.Join(k.dir, strconv.Itoa(snapshot.Number)+".json"), b, 0o600); err != nil {
		return 0, fmt.Errorf("store a snapshot: %w", err)
	}
	k.table.mu.Lock()
	k.snapshots = append(k.snapshots, &snapshot)
	gone := k.superseded()
	k.table.mu.Unlock()
	k.removeSnapshots(gone)
	return snapshot.Number, nil
}

// writeTrialFile writes trial.json.
func (k *storedTrial) writeTrialFile(meta trialFile) error {
	b, err := json.Marshal(meta)
	if err == nil {
		err = durable.WriteFile(filepath.Join(k.dir, "trial.json"), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store a snapshot: %w", err)
	}
	k.table.mu.Lock()
	defer k.table.mu.Unlock()
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
// abandoned uploads. k.diskMu is held.
func (k *storedTrial) removeSnapshots(numbers []int) {
	k.table.mu.Lock()
	k.snapshots = slices.DeleteFunc(slices.Clone(k.snapshots), func(snapshot *Snapshot) bool {
		return slices.Contains(numbers, snapshot.Number)
	})
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
			k.table.bytes -= size
		}
	}
	k.table.mu.Unlock()
	var errs []error
	for _, n := range numbers { // first, so that no snapshot is left without its contents
		errs = append(errs, durable.Remove(filepath.Join(k.dir, strconv.Itoa(n)+".json")))
	}
	for _, hash := range parts {
		errs = append(errs, k.table.removed.moveIn(filepath.Join(k.dir, "parts", hash)))
	}
	for _, hash := range unused {
		if err := k.table.removed.moveIn(filepath.Join(k.dir, "files", hash)); err != nil {
			errs = append(errs, err)
			continue
		}
		k.table.mu.Lock()
		k.table.bytes -= k.files[hash]
		delete(k.files, hash)
		k.table.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		k.table.log.Warn("an old snapshot could not be removed", "trial", k.id, "err", err)
	}
}

// Reject records that an attempt could not read the state from which it resumed. If that was a
// snapshot, it is removed, and folders on nodes that this or an earlier attempt had no longer
// count. Any other snapshot is judged by an attempt of its own. Reject is idempotent.
func (s *Store) Reject(id grid.TrialID, attempt, resumed int) error {
	k := s.lock(id)
	defer k.diskMu.Unlock()
	meta := k.trialFile
	if attempt <= meta.Bad {
		return nil
	}
	meta.Bad = attempt
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("reject a snapshot: %w", err)
	}
	if err := k.writeTrialFile(meta); err != nil {
		return err
	}
	k.removeSnapshots([]int{resumed})
	return nil
}

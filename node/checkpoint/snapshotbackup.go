package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Backup calls fn for each file of the trials' snapshots, with its path below the store's folder.
// The snapshots of a trial do not change while their files are passed to fn. Uploads in progress
// are left out.
func (s *Store) Backup(fn func(path string, f *os.File) error) error {
	for _, id := range s.ids() {
		s.mu.Lock()
		k := s.trials[id]
		s.mu.Unlock()
		if k == nil {
			continue // it was discarded in the meantime
		}
		if err := k.backup(fn); err != nil {
			return fmt.Errorf("back up the snapshots of %s: %w", id, err)
		}
	}
	return nil
}

func (k *storedTrial) backup(fn func(path string, f *os.File) error) error {
	k.diskMu.Lock()
	defer k.diskMu.Unlock()
	var files []string
	for _, pattern := range []string{"files/*", "*.json"} { // a snapshot's contents first
		found, err := filepath.Glob(filepath.Join(k.dir, pattern))
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	for _, name := range files {
		path, err := filepath.Rel(k.table.dir, name)
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of a trial that was discarded
		}
		if err == nil {
			err = errors.Join(fn(path, f), f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

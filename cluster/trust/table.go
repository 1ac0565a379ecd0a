package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"sync/atomic"

	"mlfnode/node/durable"
)

// fileVersion is the form of our JSON files. A newer form is refused: writing it back would lose
// what we don't know.
const fileVersion = 1

// table is a file of named entries. Readers take the map as it is and never wait for the disk;
// nobody changes that map. A change is made to a copy, which takes the map's place once it is on
// disk.
type table[V any] struct {
	path    string
	entries atomic.Pointer[map[string]V]

	changing sync.Mutex
}

type tableFile[V any] struct {
	Version int          `json:"version"`
	Entries map[string]V `json:"entries"`
}

// openTable reads the file, which has to be there.
func openTable[V any](path string) (*table[V], error) {
	var f tableFile[V]
	if err := readJSON(path, &f); err != nil {
		return nil, err
	}
	if f.Version > fileVersion {
		return nil, newer(path)
	}
	t := &table[V]{path: path}
	t.entries.Store(&f.Entries)
	return t, nil
}

// makeTable writes an empty file.
func makeTable(path string) error {
	return writeJSON(path, tableFile[struct{}]{Version: fileVersion, Entries: map[string]struct{}{}})
}

// all gives the entries, to be read only.
func (t *table[V]) all() map[string]V { return *t.entries.Load() }

// change lets fn edit a copy. When fn or the disk refuses, nothing has changed. Slices and maps in
// entries are shared with readers: fn replaces them.
func (t *table[V]) change(fn func(map[string]V) error) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	next := maps.Clone(t.all())
	if next == nil {
		next = map[string]V{}
	}
	if err := fn(next); err != nil {
		return err
	}
	if err := writeJSON(t.path, tableFile[V]{Version: fileVersion, Entries: next}); err != nil {
		return err
	}
	t.entries.Store(&next)
	return nil
}

func readJSON(path string, v any) error {
	b, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing; restore it from a backup: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil { // its messages name kinds and offsets, not values
		return fmt.Errorf("%s is damaged; restore it from a backup: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.WriteFile(path, append(b, '\n'), 0o600)
}

func newer(path string) error {
	return fmt.Errorf("%s was written by a newer mlfnode; run that one", path)
}

package trust

import (
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"mlfnode/node/durable"
)

// fileVersion is the version of the JSON files of this package. A newer version is rejected,
// because writing the file back would lose unknown fields.
const fileVersion = 1

// table is a file of named entries. Readers use the current map and never wait for the disk; the
// map is immutable. A change is made to a copy, which replaces the map once it is on disk.
type table[V any] struct {
	path    string
	entries atomic.Pointer[map[string]V]

	changing sync.Mutex
}

type tableFile[V any] struct {
	Version int          `json:"version"`
	Entries map[string]V `json:"entries"`
}

// openTable reads the file, which must exist.
func openTable[V any](path string) (*table[V], error) {
	f, err := readJSON[tableFile[V]](path)
	if err != nil {
		return nil, err
	}
	if f.Version > fileVersion {
		return nil, newer(path)
	}
	t := &table[V]{path: path}
	t.entries.Store(&f.Entries)
	return t, nil
}

// makeTable creates an empty file.
func makeTable(path string) error {
	return writeJSON(path, tableFile[struct{}]{Version: fileVersion, Entries: map[string]struct{}{}})
}

// all returns the entries, which must not be modified.
func (t *table[V]) all() map[string]V { return *t.entries.Load() }

// change applies fn to a copy of the map. If fn or the disk returns an error, nothing has changed.
// Slices and maps in entries are shared with readers, so fn must replace them.
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

func readJSON[V any](path string) (V, error) {
	b, err := readPrivate(path)
	return decoded(path, b, err, func(text []byte) (v V, err error) {
		err = json.Unmarshal(text, &v) // whose messages contain kinds and offsets, but no values
		return v, err
	})
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

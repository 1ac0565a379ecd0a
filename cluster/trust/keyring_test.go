package trust

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestKeyringOperations checks that any sequence of operations leaves a valid keyring, in memory
// and on disk.
func TestKeyringOperations(t *testing.T) {
	a, _, _ := newAuthority(t)
	rapid.Check(t, func(t *rapid.T) {
		ring := a.Keyring()
		pool := [][]byte{NewGossipKey(), NewGossipKey(), NewGossipKey()}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			key := rapid.SampledFrom(pool).Draw(t, "key")
			before := ring.Keys()
			var err error
			switch op := rapid.IntRange(0, 2).Draw(t, "op"); op {
			case 0:
				if err = ring.Install(key); err == nil && !slices.Equal(ring.Keys()[0], before[0]) {
					t.Fatal("install changed the primary key")
				}
			case 1:
				if err = ring.Use(key); (err == nil) != (indexOf(before, key) >= 0) ||
					(err == nil && !slices.Equal(ring.Keys()[0], key)) {
					t.Fatalf("use: got %v", err)
				}
			default:
				if err = ring.Remove(key); (err != nil) != (indexOf(before, key) == 0) ||
					(err == nil && indexOf(ring.Keys(), key) >= 0) {
					t.Fatalf("remove: got %v", err)
				}
			}
			if err != nil && !slices.EqualFunc(before, ring.Keys(), slices.Equal) {
				t.Fatalf("a refused change changed something: %v", err)
			}
			stored, err := LoadKeyring(a.dir)
			if err != nil || !slices.EqualFunc(stored.Keys(), ring.Keys(), slices.Equal) ||
				checkKeys(ring.Keys()) != nil {
				t.Fatalf("the disk has another keyring: %v", err)
			}
		}
		for _, key := range ring.Keys()[1:] { // for the next round
			if err := ring.Remove(key); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestKeyringRefusals(t *testing.T) {
	a, _, _ := newAuthority(t)
	ring := a.Keyring()
	key := NewGossipKey()
	for what, keys := range map[string][][]byte{
		"none": nil, "short": {key[:16]}, "twice": {key, key},
		"too many": slices.Repeat([][]byte{key}, mostGossipKeys+1),
	} {
		if err := ring.Save(keys); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
	if err := ring.Install(key[:8]); err == nil {
		t.Error("got a short key installed")
	}
	wantErr(t, "save", ring.Save([][]byte{key}), nil)
	ring.Keys()[0][0]++ // a copy
	if got := ring.Keys(); len(got) != 1 || !slices.Equal(got[0], key) {
		t.Error("got other keys than were saved")
	}
	if err := os.WriteFile(filepath.Join(a.dir, keyringFile), []byte(`{"keys": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadKeyring(a.dir)
	wantText(t, "no keys", err, "is damaged: a keyring has 1 to 16 gossip keys, and this one has 0")
	_, err = LoadKeyring(t.TempDir())
	wantText(t, "no file", err, "copy it, with mode 0600, from the trust folder of another node")
}

func TestKeyringAtOnce(t *testing.T) {
	a, _, _ := newAuthority(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			key := NewGossipKey()
			for _, err := range []error{a.Keyring().Install(key), a.Keyring().Use(key)} {
				if err != nil {
					t.Error(err)
				}
			}
			a.Keyring().Keys()
		})
	}
	all.Wait()
	if n := len(a.Keyring().Keys()); n != 9 {
		t.Errorf("got %d keys, want 9", n)
	}
}

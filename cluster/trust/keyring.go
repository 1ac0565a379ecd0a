package trust

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
)

// gossipKeyLen selects AES-256 in memberlist.
const gossipKeyLen = 32

// mostGossipKeys bounds the size of a keyring. A rotation needs two keys at a time.
const mostGossipKeys = 16

// Keyring holds the gossip keys: the first one, the primary key, encrypts, and all decrypt. To
// change the key without an interruption, Install the new one everywhere, then Use it everywhere,
// then Remove the old one. Each change is on disk when the call returns. A Keyring is safe for
// concurrent use.
type Keyring struct {
	dir string

	mu   sync.Mutex
	keys [][]byte
}

type keyringText struct {
	Version int      `json:"version"`
	Keys    [][]byte `json:"keys"`
}

// NewGossipKey returns a new random key.
func NewGossipKey() []byte {
	key := make([]byte, gossipKeyLen)
	rand.Read(key) // never fails
	return key
}

// LoadKeyring reads the keyring in the folder.
func LoadKeyring(dir string) (*Keyring, error) {
	path := filepath.Join(dir, keyringFile)
	if missing(path) {
		return nil,
			fmt.Errorf("%s is missing; copy it, with mode 0600, from the trust folder of another node of the cluster",
				path)
	}
	t, err := readJSON[keyringText](path)
	if err != nil {
		return nil, err
	}
	if t.Version > fileVersion {
		return nil, newer(path)
	}
	if err := checkKeys(t.Keys); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; copy it from another node of the cluster", path, err)
	}
	return &Keyring{dir: dir, keys: t.Keys}, nil
}

// Save replaces the keys of the keyring; the first one becomes the primary key.
func (k *Keyring) Save(keys [][]byte) error {
	return k.change(func([][]byte) ([][]byte, error) { return cloneKeys(keys), nil })
}

// Keys returns a copy of all keys, the primary key first.
func (k *Keyring) Keys() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return cloneKeys(k.keys)
}

// Install adds a key for decryption. It does nothing if the key is already installed.
func (k *Keyring) Install(key []byte) error {
	return k.change(func(keys [][]byte) ([][]byte, error) {
		if indexOf(keys, key) >= 0 {
			return keys, nil
		}
		return append(keys, slices.Clone(key)), nil
	})
}

// Use makes an installed key the primary key.
func (k *Keyring) Use(key []byte) error {
	return k.change(func(keys [][]byte) ([][]byte, error) {
		i := indexOf(keys, key)
		if i < 0 {
			return nil, errors.New("use a gossip key: it is not installed")
		}
		return slices.Insert(slices.Delete(keys, i, i+1), 0, slices.Clone(key)), nil
	})
}

// Remove removes a key, which must not be the primary key, so at least one key remains. It does
// nothing if the key is not installed.
func (k *Keyring) Remove(key []byte) error {
	return k.change(func(keys [][]byte) ([][]byte, error) {
		switch i := indexOf(keys, key); i {
		case -1:
			return keys, nil
		case 0:
			return nil, errors.New("remove a gossip key: it is the primary one; use another first")
		default:
			return slices.Delete(keys, i, i+1), nil
		}
	})
}

// change applies fn to a copy of the keys and stores the result.
func (k *Keyring) change(fn func([][]byte) ([][]byte, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, err := fn(cloneKeys(k.keys))
	if err != nil {
		return err
	}
	if err := saveKeys(k.dir, keys); err != nil {
		return err
	}
	k.keys = keys
	return nil
}

func saveKeys(dir string, keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, keyringFile), keyringText{Version: fileVersion, Keys: keys})
}

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > mostGossipKeys {
		return fmt.Errorf("a keyring has 1 to %d gossip keys, and this one has %d", mostGossipKeys, len(keys))
	}
	for i, key := range keys {
		if len(key) != gossipKeyLen {
			return fmt.Errorf("a gossip key has %d bytes, and not %d", gossipKeyLen, len(key))
		}
		if indexOf(keys[:i], key) >= 0 {
			return errors.New("a keyring holds each gossip key only once")
		}
	}
	return nil
}

func indexOf(keys [][]byte, key []byte) int {
	return slices.IndexFunc(keys, func(k []byte) bool { return slices.Equal(k, key) })
}

func cloneKeys(keys [][]byte) [][]byte {
	all := make([][]byte, 0, len(keys)+1)
	for _, key := range keys {
		all = append(all, slices.Clone(key))
	}
	return all
}

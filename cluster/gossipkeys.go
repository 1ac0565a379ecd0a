package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// keyring is the gossip keyring. A new key is installed on every node, then used by every node, and
// only then is the old one removed: at each step all nodes understand each other.
type keyring struct {
	mu   sync.Mutex          // one change at a time
	ring *memberlist.Keyring // nil for a node that gossips without keys
}

func newKeyring(list [][]byte) (*keyring, error) {
	if len(list) == 0 {
		return &keyring{}, nil
	}
	ring, err := memberlist.NewKeyring(clone(list[1:]), bytes.Clone(list[0]))
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	return &keyring{ring: ring}, nil
}

func clone(list [][]byte) [][]byte {
	var copied [][]byte
	for _, key := range list {
		copied = append(copied, bytes.Clone(key))
	}
	return copied
}

// InstallKey makes this node understand a key. It still encrypts with the primary one.
func (k *keyring) InstallKey(key []byte) error {
	return k.change("install", func(r *memberlist.Keyring) error { return r.AddKey(bytes.Clone(key)) })
}

// UseKey makes an installed key the primary one, with which this node encrypts.
func (k *keyring) UseKey(key []byte) error {
	return k.change("use", func(r *memberlist.Keyring) error { return r.UseKey(bytes.Clone(key)) })
}

// RemoveKey forgets a key. The primary one cannot be removed; removing one that is not there is not
// an error.
func (k *keyring) RemoveKey(key []byte) error {
	return k.change("remove", func(r *memberlist.Keyring) error {
		list := clone(r.GetKeys())
		at := slices.IndexFunc(list, func(k []byte) bool { return bytes.Equal(k, key) })
		if at < 0 {
			return nil
		}
		if at == 0 {
			return errors.New("it is the primary one; use another one first")
		}
		// The keys behind the one to remove are taken off too and put back: memberlist cuts its
		// list in place, under readers that hold no lock, unless the key is the last one. Gossip
		// recovers from the loss of a packet that arrives in between.
		for _, last := range slices.Backward(list[at:]) {
			if err := r.RemoveKey(last); err != nil {
				return err
			}
		}
		for _, behind := range list[at+1:] {
			if err := r.AddKey(behind); err != nil {
				return err
			}
		}
		return nil
	})
}

// Keys lists the keys, the primary first. They are secrets.
func (k *keyring) Keys() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil {
		return nil
	}
	return clone(k.ring.GetKeys())
}

func (k *keyring) change(verb string, do func(*memberlist.Keyring) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil {
		return errors.New("this node gossips without keys: restart it with one")
	}
	if err := do(k.ring); err != nil {
		return fmt.Errorf("%s gossip key: %w", verb, err)
	}
	return nil
}

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// keys is the gossip keyring. A new key is installed on every node, then used by every node, and
// only then is the old one removed: at each step all nodes understand each other.
type keys struct {
	mu   sync.Mutex // one change at a time
	ring *memberlist.Keyring
}

func newKeys(list [][]byte) (*keys, error) {
	if len(list) == 0 {
		return &keys{}, nil
	}
	ring, err := memberlist.NewKeyring(clone(list[1:]), bytes.Clone(list[0]))
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	return &keys{ring: ring}, nil
}

func clone(list [][]byte) [][]byte {
	var copied [][]byte
	for _, key := range list {
		copied = append(copied, bytes.Clone(key))
	}
	return copied
}

var errCleartext = errors.New("this node gossips without keys: restart it with one")

// InstallKey makes this node understand a key. It still encrypts with the primary one.
func (c *Cluster) InstallKey(key []byte) error {
	return c.ring.change("install", func(r *memberlist.Keyring) error { return r.AddKey(bytes.Clone(key)) })
}

// UseKey makes an installed key the primary one, with which this node encrypts.
func (c *Cluster) UseKey(key []byte) error {
	return c.ring.change("use", func(r *memberlist.Keyring) error { return r.UseKey(bytes.Clone(key)) })
}

// RemoveKey forgets a key. The primary one cannot be removed; removing one that is not there is not
// an error.
func (c *Cluster) RemoveKey(key []byte) error {
	return c.ring.change("remove", func(r *memberlist.Keyring) error { return removeKey(r, key) })
}

// removeKey takes off the keys behind the one to remove too, and puts them back: memberlist cuts
// its list in place, under readers that hold no lock, unless the key is the last one. Gossip gets
// over a packet that came in the moment between.
func removeKey(r *memberlist.Keyring, key []byte) error {
	list := clone(r.GetKeys())
	at := slices.IndexFunc(list, func(k []byte) bool { return bytes.Equal(k, key) })
	if at < 0 {
		return nil
	}
	if at == 0 {
		return errors.New("it is the primary one; use another one first")
	}
	for i := len(list) - 1; i >= at; i-- {
		if err := r.RemoveKey(list[i]); err != nil {
			return err
		}
	}
	for _, behind := range list[at+1:] {
		if err := r.AddKey(behind); err != nil {
			return err
		}
	}
	return nil
}

// Keys lists the keys, the primary first. They are secrets.
func (c *Cluster) Keys() [][]byte {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	if c.ring.ring == nil {
		return nil
	}
	return clone(c.ring.ring.GetKeys())
}

func (k *keys) change(verb string, do func(*memberlist.Keyring) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil {
		return errCleartext
	}
	if err := do(k.ring); err != nil {
		return fmt.Errorf("%s gossip key: %w", verb, err)
	}
	return nil
}

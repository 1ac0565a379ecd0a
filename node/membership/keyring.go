package membership

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"mlfnode/jetstream"
)

// KeysID identifies the gossip keyring of this node without revealing a key.
func (s *Membership) KeysID() uint64 { return KeysID(s.keyring.Keys()) }

// KeysID identifies a gossip keyring without revealing a key.
func KeysID(keys [][]byte) uint64 {
	sum := sha256.Sum256(bytes.Join(keys, nil))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// applyKeys makes gossip use the keys, the first of them to encrypt.
func (s *Membership) applyKeys(keys [][]byte) error {
	c := s.Gossip
	for _, k := range keys {
		if err := c.InstallKey(k); err != nil {
			return err
		}
	}
	if err := c.UseKey(keys[0]); err != nil {
		return err
	}
	for _, k := range c.Keys() {
		if !slices.ContainsFunc(keys, func(kept []byte) bool { return bytes.Equal(k, kept) }) {
			if err := c.RemoveKey(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// FollowKeyring fetches the gossip keyring of the master whenever it has another one, until ctx
// ends.
func (s *Membership) FollowKeyring(ctx context.Context, link *jetstream.MasterClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.staleKeyring:
		}
		if err := s.fetchKeyring(ctx, link); err != nil && ctx.Err() == nil {
			s.log.Warn("gossip keyring could not be brought up to date", "err", err)
		}
	}
}

func (s *Membership) fetchKeyring(ctx context.Context, link *jetstream.MasterClient) error {
	keys, err := link.Keyring(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("the master sent no key")
	}
	if err := s.keyring.Save(keys); err != nil {
		return err
	}
	return s.applyKeys(keys)
}

package membership

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"

	"mlfnode/cluster"
	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

// KeysID identifies a gossip keyring without revealing a key.
func KeysID(keys [][]byte) uint64 {
	sum := sha256.Sum256(bytes.Join(keys, nil))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// gossipKeys are the gossip keys of this node: on its disk, and in use.
type gossipKeys struct {
	log     *slog.Logger
	gossip  *cluster.Cluster
	keyring *trust.Keyring
	stale   poll.Signal // set when the master has another keyring
}

// KeysID identifies the gossip keyring of this node without revealing a key.
func (g *gossipKeys) KeysID() uint64 { return KeysID(g.keyring.Keys()) }

// apply makes gossip use the keys, the first of them to encrypt.
func (g *gossipKeys) apply(keys [][]byte) error {
	for _, k := range keys {
		if err := g.gossip.InstallKey(k); err != nil {
			return err
		}
	}
	if err := g.gossip.UseKey(keys[0]); err != nil {
		return err
	}
	for _, k := range g.gossip.Keys() {
		if !slices.ContainsFunc(keys, func(kept []byte) bool { return bytes.Equal(k, kept) }) {
			if err := g.gossip.RemoveKey(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// FollowKeyring fetches the gossip keyring of the master whenever it has another one, until ctx
// ends.
func (g *gossipKeys) FollowKeyring(ctx context.Context, link *jetstream.MasterClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.stale:
		}
		keys, err := link.Keyring(ctx)
		if err == nil && len(keys) == 0 {
			err = errors.New("the master sent no key")
		}
		if err == nil {
			err = g.keyring.Save(keys)
		}
		if err == nil {
			err = g.apply(keys)
		}
		if err != nil && ctx.Err() == nil {
			g.log.Warn("gossip keyring could not be brought up to date", "err", err)
		}
	}
}

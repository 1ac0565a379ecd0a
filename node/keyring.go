package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
)

// rotateLimit is how long a change of the gossip key waits for nodes to take the next step. One that can't be reached takes all
// steps when it is back, by way of its connection to the master.
const rotateLimit = 10 * time.Second

// rotate gives the cluster a new gossip key, step by step, so that at each moment all nodes understand each other: all learn the
// new key, then all speak with it, then all forget the old ones.
func (n *Node) rotate(ctx context.Context) error {
	n.rotating.Lock()
	defer n.rotating.Unlock()
	ring, key := n.authority.Keyring(), trust.NewGossipKey()
	old := ring.Keys()
	if err := n.stepKeyring(ctx, func() error { return ring.Install(key) }); err != nil {
		return fmt.Errorf("give out a new gossip key: %w", err)
	}
	if err := n.stepKeyring(ctx, func() error { return ring.Use(key) }); err != nil {
		return fmt.Errorf("use the new gossip key: %w", err)
	}
	err := n.stepKeyring(ctx, func() error {
		var errs []error
		for _, k := range old {
			errs = append(errs, ring.Remove(k))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("forget the old gossip key: %w", err)
	}
	return nil
}

// stepKeyring changes the keyring and waits until the nodes that are there have followed.
func (n *Node) stepKeyring(ctx context.Context, change func() error) error {
	if err := change(); err != nil {
		return err
	}
	if err := n.applyKeys(n.authority.Keyring().Keys()); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, rotateLimit)
	defer stop()
	n.master.KeysFollowed(ctx, keysID(n.authority.Keyring().Keys()))
	return nil
}

// applyKeys makes gossip use a keyring.
func (n *Node) applyKeys(keys [][]byte) error {
	c := n.fleet.cluster
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

// followKeyring fetches the keyring whenever the master has another one, until ctx ends.
func (n *Node) followKeyring(ctx context.Context, link *jetstream.MasterClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.stale:
		}
		if err := n.fetchKeyring(ctx, link); err != nil && ctx.Err() == nil {
			n.log.Warn("gossip keyring could not be brought up to date", "err", err)
		}
	}
}

func (n *Node) fetchKeyring(ctx context.Context, link *jetstream.MasterClient) error {
	keys, err := link.Keyring(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("the master sent no key")
	}
	if err := n.fleet.keyring.Save(keys); err != nil {
		return err
	}
	return n.applyKeys(keys)
}

package membership

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/poll"
)

// Rotation replaces the gossip key and the CA of a cluster, on its master. One of them changes at a
// time.
type Rotation struct {
	Membership *Membership
	Kick       func(grid.NodeID) // ends the connection of a node
	// waits until the nodes that are there use this keyring, or ctx ends
	Followed func(ctx context.Context, keys uint64)

	mu sync.Mutex // held while the gossip key or the CA changes
}

// rotateTimeout bounds how long a change of a key waits for nodes to take the next step. One that
// cannot be reached takes all steps when it is back, over its connection to the master.
const rotateTimeout = 10 * time.Second

func (r *Rotation) authority() *trust.Authority { return r.Membership.authority }

// RotateKey gives the cluster a new gossip key in steps, so that all nodes understand each other at
// every moment: first all learn the new key, then all encrypt with it, then all forget the old
// ones.
func (r *Rotation) RotateKey(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ring, key := r.authority().Keyring(), trust.NewGossipKey()
	old := ring.Keys()
	if err := r.stepKeyring(ctx, func() error { return ring.Install(key) }); err != nil {
		return fmt.Errorf("give out a new gossip key: %w", err)
	}
	if err := r.stepKeyring(ctx, func() error { return ring.Use(key) }); err != nil {
		return fmt.Errorf("use the new gossip key: %w", err)
	}
	err := r.stepKeyring(ctx, func() error {
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
func (r *Rotation) stepKeyring(ctx context.Context, change func() error) error {
	if err := change(); err != nil {
		return err
	}
	if err := r.Membership.apply(r.authority().Keyring().Keys()); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, rotateTimeout)
	defer stop()
	r.Followed(ctx, KeysID(r.authority().Keyring().Keys()))
	return nil
}

// CA returns how far a rotation of the CA has come.
func (r *Rotation) CA() api.CA {
	cas := r.authority().CAs()
	s := api.CA{
		Stage: string(r.authority().Stage()), Pin: trust.PinOf(cas[0]).String(), Behind: []grid.NodeID{},
		Away: []grid.NodeID{},
	}
	if len(cas) > 1 {
		s.Other = trust.PinOf(cas[1]).String()
	}
	up := map[grid.NodeID]bool{}
	for _, m := range r.Membership.Gossip.Members() {
		up[m.Node] = m.There()
	}
	for _, node := range r.authority().Behind() {
		if up[node] {
			s.Behind = append(s.Behind, node)
		} else {
			s.Away = append(s.Away, node)
		}
	}
	return s
}

// StepCA takes the next step of a rotation of the CA, and waits up to rotateTimeout until the nodes
// that are there have followed: the answers to their heartbeats tell them immediately that the
// master has other CAs. A node that cannot be reached follows when it is back.
func (r *Rotation) StepCA(ctx context.Context, s api.CAStep) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The master itself must have followed the step before.
	if err := r.authority().RenewSelf(r.Membership.id); err != nil {
		return fmt.Errorf("issue this node's certificate: %w", err)
	}
	before := r.CA()
	var step func() error
	var missing []grid.NodeID // nodes that the step would leave behind
	switch s.Step {
	case "rotate":
		step = r.authority().Rotate
	case "switch":
		step, missing = r.authority().Switch, before.Behind
	case "retire":
		step, missing = r.authority().Retire, slices.Concat(before.Behind, before.Away)
	default:
		return &api.Error{Status: http.StatusBadRequest, Msg: fmt.Sprintf("%.40q is not a step of a rotation", s.Step),
			Hint: "use rotate, switch or retire"}
	}
	if next := nextStep(before.Stage); s.Step == next && len(missing) > 0 && !s.Now {
		return &api.Error{Status: http.StatusConflict,
			Msg: "nodes have not followed the last step yet: " + names(missing),
			Hint: "start or update them; or forget them; or leave them behind, so that they need a token to join again: mlfnode ca " +
				s.Step + " --now"}
	}
	err := step()
	if errors.Is(err, trust.ErrStage) {
		return &api.Error{Status: http.StatusConflict, Msg: err.Error(),
			Hint: "take the next step with: mlfnode ca " + nextStep(before.Stage)}
	}
	if renewed := r.authority().RenewSelf(r.Membership.id); renewed != nil {
		err = errors.Join(err, fmt.Errorf("issue this node's certificate: %w", renewed))
	}
	after := r.CA()
	if s.Step == "retire" && after.Stage != before.Stage {
		for _, node := range missing {
			r.Kick(node)
		}
	}
	if err != nil {
		return err
	}
	r.Membership.log.Info("the CA takes a step", "step", s.Step, "issuer", after.Pin, "left", names(missing))
	if s.Step == "retire" {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, rotateTimeout)
	defer stop()
	_ = poll.Until(ctx, stepInterval, func() (bool, error) { return len(r.CA().Behind) == 0, nil })
	return nil // the others follow when they are back
}

// stepInterval is how often the master checks whether the nodes have followed a step.
const stepInterval = 50 * time.Millisecond

// nextStep returns the step that follows a stage of the rotation.
func nextStep(stage string) string {
	switch trust.Stage(stage) {
	case trust.Announced:
		return "switch"
	case trust.Switched:
		return "retire"
	}
	return "rotate"
}

func names(nodes []grid.NodeID) string {
	var all []string
	for _, node := range nodes {
		all = append(all, string(node))
	}
	return strings.Join(all, ", ")
}

// Forget removes a node from the cluster: its certificate becomes invalid, its connection ends, its
// trials run elsewhere, and the others gossip with a key that it does not have. If a step fails,
// another Forget of the node takes the remaining ones.
func (r *Rotation) Forget(ctx context.Context, node grid.NodeID) error {
	if err := r.authority().Forget(node); err != nil {
		return err
	}
	r.Kick(node)
	return r.RotateKey(ctx)
}

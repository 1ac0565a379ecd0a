package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// stateOfCA says how far a rotation of the CA has come.
func (n *Node) stateOfCA() api.CA {
	cas := n.authority.CAs()
	s := api.CA{Stage: string(n.authority.Stage()), Pin: trust.PinOf(cas[0]).String(), Behind: []grid.NodeID{}, Away: []grid.NodeID{}}
	if len(cas) > 1 {
		s.Other = trust.PinOf(cas[1]).String()
	}
	up := map[grid.NodeID]bool{}
	for _, m := range n.fleet.cluster.Members() {
		up[m.Node] = m.There()
	}
	for _, node := range n.authority.Behind() {
		if up[node] {
			s.Behind = append(s.Behind, node)
		} else {
			s.Away = append(s.Away, node)
		}
	}
	return s
}

// stepCA takes the next step of a rotation of the CA, and waits up to rotateLimit until the nodes that are there have followed. With their beats
// they hear at once that they have other CAs than the master; one that can't be reached follows when it is back.
func (n *Node) stepCA(ctx context.Context, s api.CAStep) error {
	n.rotating.Lock()
	defer n.rotating.Unlock()
	if err := n.authority.RenewSelf(n.fleet.id); err != nil { // the master itself has to have followed the step before
		return fmt.Errorf("issue this node's certificate: %w", err)
	}
	before := n.stateOfCA()
	var step func() error
	var missing []grid.NodeID // nodes that the step would leave behind
	switch s.Step {
	case "rotate":
		step = n.authority.Rotate
	case "switch":
		step, missing = n.authority.Switch, before.Behind
	case "retire":
		step, missing = n.authority.Retire, slices.Concat(before.Behind, before.Away)
	default:
		return &api.Error{Status: http.StatusBadRequest, Msg: fmt.Sprintf("%.40q is not a step of a rotation", s.Step), Hint: "use rotate, switch or retire"}
	}
	if next := nextStep(before.Stage); s.Step == next && len(missing) > 0 && !s.Now {
		return &api.Error{Status: http.StatusConflict, Msg: "nodes have not followed the last step yet: " + names(missing),
			Hint: fmt.Sprintf("start or update them; or forget them; or leave them behind, so that they need a token to join again: mlfnode ca %s --now", s.Step)}
	}
	err := step()
	if errors.Is(err, trust.ErrStage) {
		return &api.Error{Status: http.StatusConflict, Msg: err.Error(), Hint: "take the next step with: mlfnode ca " + nextStep(before.Stage)}
	}
	if renewed := n.authority.RenewSelf(n.fleet.id); renewed != nil {
		err = errors.Join(err, fmt.Errorf("issue this node's certificate: %w", renewed))
	}
	after := n.stateOfCA()
	if s.Step == "retire" && after.Stage != before.Stage {
		for _, node := range missing {
			n.server.Kick(node)
		}
	}
	if err != nil {
		return err
	}
	n.log.Info("the CA takes a step", "step", s.Step, "issuer", after.Pin, "left", names(missing))
	if s.Step == "retire" {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, rotateLimit)
	defer stop()
	tick := time.NewTicker(stepInterval)
	defer tick.Stop()
	for len(n.stateOfCA().Behind) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// stepInterval is how often it is looked whether nodes have followed a step.
const stepInterval = 50 * time.Millisecond

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

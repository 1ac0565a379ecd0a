package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
)

func (m *Monitor) members(*http.Request) ([]api.Member, error) {
	if m.cfg.Members == nil {
		return nil, errAlone
	}
	return m.cfg.Members(), nil
}

// errAlone is the answer of a node that is in no cluster.
var errAlone = &api.Error{
	Status: http.StatusConflict, Msg: "this node is in no cluster", Hint: "start one with: mlfnode master, or join one with: mlfnode join --seed HOST",
}

// actOnMember drains a node, lets it take trials again, forgets it, or has it take a GPU back into service.
func (m *Monitor) actOnMember(r *http.Request) (struct{}, error) {
	var none struct{}
	if m.cfg.Authority == nil {
		return none, errAlone
	}
	node := grid.NodeID(r.PathValue("node"))
	var err error
	switch action := r.PathValue("action"); action {
	case "drain":
		var d api.Drain
		if err := decode(r, &d); err != nil {
			return none, err
		}
		err = m.drain(r.Context(), node, trust.Drain{On: true, Reason: d.Reason, By: "operator"})
	case "undrain":
		m.cfg.Master.Restore(node)
		err = m.drain(r.Context(), node, trust.Drain{})
	case "clear-gpu":
		var c api.ClearGPU
		if err := decode(r, &c); err != nil {
			return none, err
		}
		return none, m.clearGPU(r.Context(), node, c.GPU)
	case "forget":
		err = m.cfg.Forget(r.Context(), node)
	default:
		err = badRequest("a node has no action "+action, "")
	}
	if errors.Is(err, trust.ErrUnknownNode) {
		return none, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no node %q", node), Hint: "list them with: mlfnode members"}
	}
	return none, err
}

// drain gives a node an order, and returns once it follows.
func (m *Monitor) drain(ctx context.Context, node grid.NodeID, d trust.Drain) error {
	if err := m.cfg.Authority.SetDrain(node, d); err != nil {
		return err
	}
	m.cfg.Master.DrainFollowed(ctx, node, d.On)
	return nil
}

// maxGPUName bounds what a request may call a GPU.
const maxGPUName = 64

// clearGPU has a node take a GPU back into service.
func (m *Monitor) clearGPU(ctx context.Context, node grid.NodeID, gpu string) error {
	if gpu == "" || len(gpu) > maxGPUName {
		return badRequest("the request names no GPU", "name it by index or UUID, as in mlfnode gpus --clear hostA:1")
	}
	known := slices.ContainsFunc(m.cfg.Members(), func(member api.Member) bool { return member.Node == node })
	if !known {
		return &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no node %q", node), Hint: "list them with: mlfnode members"}
	}
	if err := m.cfg.Master.ClearDevice(ctx, node, gpu); err != nil {
		return &api.Error{Status: http.StatusConflict, Msg: err.Error(), Hint: "list the GPUs with: mlfnode gpus"}
	}
	return nil
}

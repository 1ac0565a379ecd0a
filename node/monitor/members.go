package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"mlfnode/cluster/scheduling"
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

// onMember does something to the node that a request names.
func (m *Monitor) onMember(r *http.Request, do func(context.Context, grid.NodeID) error) (struct{}, error) {
	var none struct{}
	if m.cfg.Authority == nil {
		return none, errAlone
	}
	node := grid.NodeID(r.PathValue("node"))
	err := do(r.Context(), node)
	if errors.Is(err, trust.ErrUnknownNode) {
		return none, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no node %q", node), Hint: "list them with: mlfnode members"}
	}
	return none, err
}

func (m *Monitor) drainMember(r *http.Request, d *api.Drain) (struct{}, error) {
	return m.onMember(r, func(ctx context.Context, node grid.NodeID) error {
		return m.drain(ctx, node, scheduling.Drain{On: true, Reason: d.Reason, By: scheduling.ByOperator})
	})
}

func (m *Monitor) undrainMember(r *http.Request) (struct{}, error) {
	return m.onMember(r, func(ctx context.Context, node grid.NodeID) error {
		return m.drain(ctx, node, scheduling.Drain{})
	})
}

func (m *Monitor) forgetMember(r *http.Request) (struct{}, error) {
	return m.onMember(r, m.cfg.Forget)
}

// drain gives a node an order, and returns once it follows.
func (m *Monitor) drain(ctx context.Context, node grid.NodeID, d scheduling.Drain) error {
	if err := m.cfg.Scheduling.SetDrain(node, d); err != nil {
		return err
	}
	m.cfg.Master.AwaitDrain(ctx, node, d.On)
	return nil
}

// nodes gives what all nodes were doing lately.
func (m *Monitor) nodes(*http.Request) ([]api.NodeSamples, error) {
	return m.cfg.Master.NodeSamples(), nil
}

// samples gives what a node was doing in the last hour, or in a longer time by longer samples.
func (m *Monitor) samples(r *http.Request) (api.NodeSamples, error) {
	node, step := grid.NodeID(r.PathValue("node")), api.SampleSteps[0]
	if text := r.FormValue("step"); text != "" {
		var err error
		if step, err = time.ParseDuration(text); err != nil || !slices.Contains(api.SampleSteps[:], step) {
			return api.NodeSamples{}, badRequest(fmt.Sprintf("no samples are kept every %.20q", text), "choose 15s for the last hour, 1m for a day or 15m for 14 days")
		}
	}
	v, ok := m.cfg.Master.Samples(node, step)
	if !ok {
		return v, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there are no samples of a node %.60q", node), Hint: "list the nodes with: mlfnode members"}
	}
	return v, nil
}

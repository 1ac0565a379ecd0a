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
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/master"
)

// nodeHandlers answer calls about nodes.
type nodeHandlers struct {
	self    api.Node // the parts that do not change
	master  *master.Master
	store   *jetstream.Store
	members func() []api.Member // nil on a node that stands alone
	working func() bool         // nil on a node that takes trials from the start
	cluster *Cluster
}

func (h *nodeHandlers) show(r *http.Request) (api.Node, error) {
	n := h.self
	n.Orders, n.Features = grid.Orders(), grid.Features()
	n.Time, n.Working = time.Now().UTC(), h.working == nil || h.working()
	if h.store == nil {
		return n, nil
	}
	var err error
	n.Store, err = storeUsage(r.Context(), h.store, h.master)
	return n, err
}

// storeUsage returns the usage of each part of the store.
func storeUsage(ctx context.Context, store *jetstream.Store, master *master.Master) ([]api.Store, error) {
	usage, err := store.Usage(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.Store
	for _, u := range usage {
		all = append(all, api.Store{Name: u.Name, Bytes: u.Bytes, Limit: u.Limit})
	}
	if master != nil && master.Snapshots() != nil {
		bytes, limit := master.Snapshots().Usage()
		all = append(all, api.Store{Name: "checkpoints", Bytes: bytes, Limit: limit})
	}
	return all, nil
}

func (h *nodeHandlers) list(*http.Request) ([]api.Member, error) {
	if h.members == nil {
		return nil, errAlone
	}
	return h.members(), nil
}

// errAlone is the response of a node that is not in a cluster.
var errAlone = &api.Error{
	Status: http.StatusConflict, Msg: "this node is not in a cluster",
	Hint: "start one with: mlfnode master, or join one with: mlfnode join --seed HOST",
}

// onMember applies an action to the node that a request names.
func (h *nodeHandlers) onMember(r *http.Request, do func(context.Context, grid.NodeID) error) (struct{}, error) {
	var none struct{}
	if h.cluster.Authority == nil {
		return none, errAlone
	}
	node := grid.NodeID(r.PathValue("node"))
	err := do(r.Context(), node)
	if errors.Is(err, trust.ErrUnknownNode) {
		return none, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no node %q", node),
			Hint: "list them with: mlfnode members"}
	}
	return none, err
}

func (h *nodeHandlers) drainMember(r *http.Request, d *api.Drain) (struct{}, error) {
	return h.onMember(r, func(ctx context.Context, node grid.NodeID) error {
		return h.drain(ctx, node, scheduling.Drain{On: true, Reason: d.Reason, By: scheduling.ByOperator})
	})
}

func (h *nodeHandlers) undrainMember(r *http.Request) (struct{}, error) {
	return h.onMember(r, func(ctx context.Context, node grid.NodeID) error {
		return h.drain(ctx, node, scheduling.Drain{})
	})
}

func (h *nodeHandlers) forgetMember(r *http.Request) (struct{}, error) {
	return h.onMember(r, h.cluster.Forget)
}

// drain drains or undrains a node, and returns once the node complies.
func (h *nodeHandlers) drain(ctx context.Context, node grid.NodeID, d scheduling.Drain) error {
	if err := h.cluster.Scheduling.SetDrain(node, d); err != nil {
		return err
	}
	h.master.AwaitDrain(ctx, node, d.On)
	return nil
}

// recent answers with the latest samples of all nodes.
func (h *nodeHandlers) recent(*http.Request) ([]api.NodeSamples, error) {
	return h.master.NodeSamples(), nil
}

// samples answers with the samples of a node from the last hour, or with coarser samples over a
// longer time.
func (h *nodeHandlers) samples(r *http.Request) (api.NodeSamples, error) {
	node, step := grid.NodeID(r.PathValue("node")), api.SampleSteps[0]
	if text := r.FormValue("step"); text != "" {
		var err error
		if step, err = time.ParseDuration(text); err != nil || !slices.Contains(api.SampleSteps[:], step) {
			return api.NodeSamples{},
				badRequest(fmt.Sprintf("no samples are kept every %.20q", text),
					"choose 15s for the last hour, 1m for a day or 15m for 14 days")
		}
	}
	v, ok := h.master.Samples(node, step)
	if !ok {
		return v, &api.Error{Status: http.StatusNotFound,
			Msg: fmt.Sprintf("there are no samples of a node %.60q",
				node), Hint: "list the nodes with: mlfnode members"}
	}
	return v, nil
}

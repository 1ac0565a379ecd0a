package master

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// deviceOrders are requests of people to nodes about their devices, until the nodes have answered. The zero value is ready.
type deviceOrders struct {
	mu   sync.Mutex
	open map[grid.NodeID][]*deviceOrder
}

type deviceOrder struct {
	jetstream.DeviceOrder
	answer chan string // holds one: "" is done
}

// maxDeviceOrders bounds how many requests to a node are open at one time.
const maxDeviceOrders = 16

// orderTime is how long a node may take to answer: it beats twice a second.
const orderTime = 10 * time.Second

// ErrNodeSilent is returned by ClearDevice when the node does not answer.
var ErrNodeSilent = errors.New("the node does not answer")

// ClearDevice has a node take a device, named as devices.Watch.Clear takes it, back into service. It returns once the node has answered,
// with its reason if it refuses.
func (m *Master) ClearDevice(ctx context.Context, node grid.NodeID, device string) error {
	o := &deviceOrder{jetstream.DeviceOrder{ID: rand.Text(), Clear: device}, make(chan string, 1)}
	if !m.deviceOrders.add(node, o) {
		return fmt.Errorf("%w: %d requests to it are open", ErrNodeSilent, maxDeviceOrders)
	}
	defer m.deviceOrders.remove(node, o)
	limit := time.NewTimer(orderTime)
	defer limit.Stop()
	select {
	case refusal := <-o.answer:
		if refusal != "" {
			return errors.New(refusal)
		}
		return nil
	case <-limit.C:
		return ErrNodeSilent
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *deviceOrders) add(node grid.NodeID, o *deviceOrder) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[grid.NodeID][]*deviceOrder{}
	}
	if len(d.open[node]) >= maxDeviceOrders {
		return false
	}
	d.open[node] = append(d.open[node], o)
	return true
}

func (d *deviceOrders) remove(node grid.NodeID, o *deviceOrder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[node] = slices.DeleteFunc(d.open[node], func(p *deviceOrder) bool { return p == o })
	if len(d.open[node]) == 0 {
		delete(d.open, node)
	}
}

// beat takes a node's answers over and gives the requests that it has not answered.
func (d *deviceOrders) beat(node grid.NodeID, answers []jetstream.DeviceAnswer) []jetstream.DeviceOrder {
	d.mu.Lock()
	defer d.mu.Unlock()
	var open []jetstream.DeviceOrder
	for _, o := range d.open[node] {
		i := slices.IndexFunc(answers, func(a jetstream.DeviceAnswer) bool { return a.ID == o.ID })
		if i < 0 {
			open = append(open, o.DeviceOrder)
			continue
		}
		select {
		case o.answer <- answers[i].Refusal:
		default: // it was answered already
		}
	}
	return open
}

package master

import (
	"sync"
	"time"

	"mlfnode/grid"
)

// withholdTime is how long a node gets no trials that need its GPUs, or its container engine, after such trials failed there in a row. Then it is
// tried once more.
const withholdTime = time.Hour

// withheld is what nodes get no trials for. The zero value withholds nothing.
type withheld struct {
	mu    sync.Mutex
	nodes map[grid.NodeID]map[grid.Scope]withholding
}

// withholding is why, and until when.
type withholding struct {
	reason string
	until  time.Time
}

// add withholds trials from a part of a node.
func (w *withheld) add(node grid.NodeID, part grid.Scope, reason string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes == nil {
		w.nodes = map[grid.NodeID]map[grid.Scope]withholding{}
	}
	if w.nodes[node] == nil {
		w.nodes[node] = map[grid.Scope]withholding{}
	}
	w.nodes[node][part] = withholding{reason, now.Add(withholdTime)}
}

// of gives what is withheld from a node now, with the reasons; nil for nothing.
func (w *withheld) of(node grid.NodeID, now time.Time) map[grid.Scope]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all map[grid.Scope]string
	for part, why := range w.nodes[node] {
		if now.After(why.until) {
			delete(w.nodes[node], part)
			continue
		}
		if all == nil {
			all = map[grid.Scope]string{}
		}
		all[part] = why.reason
	}
	return all
}

// Restore lets a node have all kinds of trials again.
func (m *Master) Restore(node grid.NodeID) {
	m.withheld.mu.Lock()
	defer m.withheld.mu.Unlock()
	delete(m.withheld.nodes, node)
}

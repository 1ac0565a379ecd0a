// Package scheduling records which nodes take trials: operators drain nodes, the master quarantines
// broken ones and withholds trials from a part of a node. What it records survives a restart of the
// master; package trust stores it beside the certificate of each node, and forgets it with the
// node.
package scheduling

import (
	"encoding/json"
	"maps"
	"time"

	"mlfnode/grid"
)

// The values of Drain.By.
const (
	ByOperator = "operator"
	ByMaster   = "master" // the node is broken and quarantined
)

// Drain says whether a node takes no new trials, why, and who decided that.
type Drain struct {
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`

	// parts that get no trials for a while, though the node takes others
	Withheld map[grid.Scope]Withheld `json:"withheld,omitempty"`
}

// Withheld says why a part of a node gets no trials, and until when.
type Withheld struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// Store keeps a JSON value for each node of the cluster.
type Store interface {
	// NodeData returns the value of a node, nil if it has none.
	NodeData(grid.NodeID) json.RawMessage
	// EditNodeData replaces the value of a node durably; nil removes it. It returns
	// trust.ErrUnknownNode for a node that is not in the cluster.
	EditNodeData(node grid.NodeID, edit func(json.RawMessage) (json.RawMessage, error)) error
}

// Registry is what is recorded of all nodes. Its methods may be called from any goroutine.
type Registry struct {
	store Store
	now   func() time.Time
}

// New returns the registry in a store. A nil now is time.Now.
func New(store Store, now func() time.Time) *Registry {
	if now == nil {
		now = time.Now
	}
	return &Registry{store: store, now: now}
}

// SetDrain records whether a node takes new trials, and ends what was withheld from its parts. It
// returns trust.ErrUnknownNode if there is no such node.
func (r *Registry) SetDrain(node grid.NodeID, d Drain) error {
	return r.edit(node, func(old *Drain) { *old = d })
}

// Withhold records that a part of a node gets no trials until then, or until the next SetDrain of
// the node. It returns trust.ErrUnknownNode if there is no such node.
func (r *Registry) Withhold(node grid.NodeID, part grid.Scope, why Withheld) error {
	return r.edit(node, func(d *Drain) {
		maps.DeleteFunc(d.Withheld, func(_ grid.Scope, old Withheld) bool { return !r.now().Before(old.Until) })
		if d.Withheld == nil {
			d.Withheld = map[grid.Scope]Withheld{}
		}
		d.Withheld[part] = why
	})
}

// Withheld returns the parts of a node that get no trials now, with the reasons; nil for none.
func (r *Registry) Withheld(node grid.NodeID) map[grid.Scope]string {
	var all map[grid.Scope]string
	for part, why := range decode(r.store.NodeData(node)).Withheld {
		if r.now().Before(why.Until) {
			if all == nil {
				all = map[grid.Scope]string{}
			}
			all[part] = why.Reason
		}
	}
	return all
}

// Drain returns what is recorded of a node. A node without a record takes trials.
func (r *Registry) Drain(node grid.NodeID) Drain { return decode(r.store.NodeData(node)) }

func (r *Registry) edit(node grid.NodeID, fn func(*Drain)) error {
	return r.store.EditNodeData(node, func(data json.RawMessage) (json.RawMessage, error) {
		d := decode(data)
		fn(&d)
		if !d.On && d.Reason == "" && d.By == "" && len(d.Withheld) == 0 {
			return nil, nil
		}
		return json.Marshal(d)
	})
}

// decode reads the record of a node. A node whose record is damaged takes no trials until somebody
// drains or undrains it.
func decode(data json.RawMessage) Drain {
	var d Drain
	if len(data) == 0 {
		return d
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return Drain{On: true, By: ByOperator,
			Reason: "its record on the master is damaged; undrain it to let it take trials"}
	}
	return d
}

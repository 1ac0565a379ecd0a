package natsd

import (
	"maps"
	"slices"
	"sync"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

// connections is the table of nodes' connections. A node has one: a new connection supersedes an
// older one.
type connections struct {
	superseded poll.Signal // a connection has been superseded

	notifying sync.Mutex // held while observers run; taken before mu

	mu        sync.Mutex
	nodes     map[uint64]grid.NodeID // by nats-server's connection IDs
	older     []uint64               // superseded and not closed yet
	observers map[int]func(grid.NodeID)
	lastID    int // of observers
}

func newConnections() *connections {
	return &connections{
		superseded: poll.NewSignal(), nodes: map[uint64]grid.NodeID{}, observers: map[int]func(grid.NodeID){},
	}
}

// add enters a connection of a node, which supersedes the node's earlier ones.
func (c *connections) add(id uint64, node grid.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, of := range c.nodes {
		if of == node {
			c.older = append(c.older, old)
		}
	}
	c.nodes[id] = node
	if len(c.older) > 0 {
		c.superseded.Set()
	}
}

// remove takes out a connection that was refused after all.
func (c *connections) remove(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, id)
}

// byID returns the node of each connection.
func (c *connections) byID() map[uint64]grid.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.nodes)
}

// onDisconnect calls fn with each node whose last connection has ended, until stop is called. fn
// must not call stop, and does not run after stop has returned.
func (c *connections) onDisconnect(fn func(grid.NodeID)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	id := c.lastID
	c.observers[id] = fn
	return func() {
		c.mu.Lock()
		delete(c.observers, id)
		c.mu.Unlock()
		c.notifying.Lock() // a call that has begun ends
		defer c.notifying.Unlock()
	}
}

// reap closes superseded connections, removes those that are no longer open, and tells observers of
// nodes that have none left.
func (c *connections) reap(isOpen func(id uint64) bool, closeConnection func(id uint64)) {
	c.notifying.Lock()
	defer c.notifying.Unlock()
	c.mu.Lock()
	older := c.older
	c.older = nil
	connected := map[grid.NodeID]bool{}
	for id, node := range c.nodes {
		if isOpen(id) {
			connected[node] = true
		}
	}
	var gone []grid.NodeID
	for id, node := range c.nodes {
		if !isOpen(id) {
			delete(c.nodes, id)
			if !connected[node] {
				gone = append(gone, node)
			}
		}
	}
	observers := slices.Collect(maps.Values(c.observers))
	c.mu.Unlock()
	for _, id := range older {
		closeConnection(id)
	}
	for _, node := range gone {
		for _, fn := range observers {
			fn(node)
		}
	}
}

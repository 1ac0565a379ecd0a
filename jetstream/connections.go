package jetstream

import "mlfnode/grid"

// Disconnections calls fn with the name of each node whose connection ends, until stop is called: at once when the other side has
// closed, and within some seconds when it does not answer. fn must be quick. It is for a Server that listens.
func (s *Server) Disconnections(fn func(grid.NodeID)) (stop func(), err error) {
	return s.gate.watch(fn), nil
}

// Kick ends the connections of a node that may not come in any more.
func (s *Server) Kick(node grid.NodeID) { s.gate.kick(node) }

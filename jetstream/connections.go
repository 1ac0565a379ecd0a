package jetstream

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// Disconnections calls fn with the name of each node whose connection ends, until stop is called. The server tells of it at once
// when the other side has closed, and within some seconds when it does not answer. fn must be quick. It is for a Server that
// listens.
func (s *Server) Disconnections(fn func(grid.NodeID)) (stop func(), err error) {
	conn, err := s.inside(systemUser)
	if err != nil {
		return nil, fmt.Errorf("watch connections: %w", err)
	}
	_, err = conn.Subscribe("$SYS.ACCOUNT.*.DISCONNECT", func(m *nats.Msg) {
		var event struct {
			Client struct {
				User string `json:"user"`
			} `json:"client"`
		}
		if json.Unmarshal(m.Data, &event) == nil && event.Client.User != "" && event.Client.User != ownUser {
			fn(grid.NodeID(event.Client.User))
		}
	})
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch connections: %w", err)
	}
	return conn.Close, nil
}

// Kick ends the connections of a node that may not come in any more.
func (s *Server) Kick(node grid.NodeID) {
	open, err := s.nats.Connz(connections(node))
	if err != nil {
		return // it has none
	}
	for _, c := range open.Conns {
		_ = s.nats.DisconnectClientByID(c.Cid) // it may have gone
	}
}

package jetstream

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"mlfnode/node/poll"
)

const (
	// hintPause is the shortest time between two rounds of hints. It grows by hintNodePause for
	// each node: with many nodes, those that have room ask for leases anyway.
	hintPause     = 10 * time.Millisecond
	hintNodePause = 250 * time.Microsecond
)

// hintQueue holds the hints that are to be sent.
type hintQueue struct {
	pending poll.Signal // there are some

	mu      sync.Mutex
	lanes   map[string]bool // with new leases
	records bool            // whether records have changed
}

// add changes what is to be sent soon.
func (h *hintQueue) add(change func(*hintQueue)) {
	h.mu.Lock()
	change(h)
	h.mu.Unlock()
	h.pending.Set()
}

// take returns what is to be sent now.
func (h *hintQueue) take() wireHints {
	h.mu.Lock()
	defer h.mu.Unlock()
	hints := wireHints{Lanes: slices.Collect(maps.Keys(h.lanes)), Records: h.records}
	clear(h.lanes)
	h.records = false
	return hints
}

// wireHints is what nodes are told without asking: the lanes with new leases, and whether records
// have changed. A lost one does no harm: nodes ask from time to time.
type wireHints struct {
	Lanes   []string `json:"lanes,omitempty"`
	Records bool     `json:"records,omitempty"`
}

// sendHints sends hints until the callServer closes: the first immediately, and those that follow
// within the pause together.
func (c *callServer) sendHints() {
	for {
		select {
		case <-c.hints.pending:
		case <-c.ctx.Done():
			return
		}
		nodes := slices.Sorted(maps.Keys(c.server.Connections()))
		data, err := json.Marshal(c.hints.take())
		for _, node := range nodes {
			if err == nil {
				err = c.conn.Publish(inbox(node)+"."+hintToken, data)
			}
		}
		if err != nil {
			c.calls.store.log.Debug("hints could not be sent", "err", err)
		}
		if !poll.Sleep(c.ctx, max(hintPause, time.Duration(len(nodes))*hintNodePause)) {
			return
		}
	}
}

package natsd

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"mlfnode/grid"
)

// TestOldEntriesAreForgotten checks that handshakes and blocks of nodes that disconnected long ago
// take no memory.
func TestOldEntriesAreForgotten(t *testing.T) {
	t.Parallel()
	a := newAuthenticator(nil, nil, slog.New(slog.DiscardHandler))
	past := time.Now().Add(-2 * max(handshakeAge, blockTime))
	for i := range 100 {
		node := grid.NodeID(fmt.Sprint("gone", i))
		a.handshakes[node], a.blocked[node] = handshakes{count: 1, last: past}, past
	}
	a.countHandshake("w")
	a.block("b")
	if h, b := len(a.handshakes), len(a.blocked); h != 1 || b != 1 {
		t.Errorf("got handshakes of %d nodes and %d blocked ones, want one of each", h, b)
	}
}

package node

import (
	"testing"

	"mlfnode/node/config"
)

// TestStalledDiskIsDetected takes a disk that answers, were it with an error, for one that does not stand
// still.
func TestStalledDiskIsDetected(t *testing.T) {
	var s stall
	cfg := config.Config{StateDir: t.TempDir()}
	for _, dir := range []string{cfg.StateDir, cfg.StateDir + "/missing"} {
		if s.stalled(dir, nil) {
			t.Errorf("%s counts as stalled", dir)
		}
	}
}

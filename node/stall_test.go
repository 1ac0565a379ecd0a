package node

import (
	"testing"

	"mlfnode/node/config"
)

// TestStalledDiskIsDetected also checks that a disk that answers, even with an error, does not
// count as stalled.
func TestStalledDiskIsDetected(t *testing.T) {
	var s stall
	cfg := config.Config{StateDir: t.TempDir()}
	for _, dir := range []string{cfg.StateDir, cfg.StateDir + "/missing"} {
		if s.stalled(dir, nil) {
			t.Errorf("%s counts as stalled", dir)
		}
	}
}

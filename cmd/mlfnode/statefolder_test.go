package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cluster/trust"
)

// TestStateOfAnotherUser has root use the state folder of another user, with and without a
// cluster's credentials in it: each command names the user to run it as.
func TestStateOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("left out: only root can give a folder to another user")
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for what, role := range map[string]string{"alone": "", "master": "trust"} {
		state := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		if role != "" {
			if _, err := trust.OpenAuthority(filepath.Join(state, role), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(state, 1, 1); err != nil {
			t.Fatal(err)
		}
		lines := []string{"sweeps", "backup " + filepath.Join(t.TempDir(), "b")}
		if role == "" {
			lines = lines[:1]
		}
		for _, line := range lines {
			code, said := runLine(t, line+" --state-dir "+state)
			if code != exitFailed || !strings.Contains(said, "belongs to the user ") ||
				!strings.Contains(said, "sudo -u ") {
				t.Errorf("%s, %s: got exit code %d and %s", what, line, code, said)
			}
		}
	}
}

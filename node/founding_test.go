package node_test

import (
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/jetstream"
	"mlfnode/node"
)

// TestShellsOfALoneMachine makes a machine that has run sweeps alone the master of a cluster: no worker may read what was in the environment
// of the shell that submitted them.
func TestShellsOfALoneMachine(t *testing.T) {
	cfg, err := node.LoadConfig("")
	if err != nil {
		t.Fatal(err)
	}
	lone := config(t)
	cfg.StateDir, cfg.Node, cfg.Machine, cfg.Logger = lone.StateDir, "m", lone.Machine, lone.Logger
	cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Ports = "127.0.0.1", "127.0.0.1", node.Ports{}
	environ := func() (shell, added string) {
		server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(cfg.StateDir, "jetstream"), Logger: cfg.Logger})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		store, err := server.Store(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		all, err := store.Records.All(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("got %d records, %v", len(all), err)
		}
		return strings.Join(all[0].Sweep.Environ, "\n"), strings.Join(all[0].Sweep.EnvironAdded, "\n")
	}
	s := attach(t, lone)
	sub := script(t, "exit 3", "i=1")
	sub.Environ, sub.EnvironAdded = append(sub.Environ, "SECRET_OF_THE_SHELL=hunter2"), []string{"ADDED=1"}
	wait(t, s.Client(), submit(t, s.Client(), sub).Sweep)
	s.Close()
	if shell, _ := environ(); !strings.Contains(shell, "hunter2") {
		t.Fatalf("alone, the record has the environment %q, want that of the shell", shell)
	}
	n, err := node.OpenMaster(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	n.Close()
	if shell, added := environ(); shell != "" || added != "ADDED=1" {
		t.Errorf("a master's record has the environment %q and %q, want only what the user has added", shell, added)
	}
}

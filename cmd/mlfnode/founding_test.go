package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
	"mlfnode/node"
)

// TestShellsOfALoneMachine makes a machine that has run sweeps alone the master of a cluster: no worker may read what was in the environment
// of the shell that submitted them.
func TestShellsOfALoneMachine(t *testing.T) {
	c := newTestCluster(t)
	if err := os.RemoveAll(c.state); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET_OF_THE_SHELL", "hunter2")
	open(t, "sweep", "-q", "--state-dir", c.state, "--env", "ADDED=1", "--", "sh", "-c", "exit 3").exit(1)
	environ := func() (shell, added string) {
		server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(c.state, "jetstream"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
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
	if shell, _ := environ(); !strings.Contains(shell, "hunter2") {
		t.Fatalf("alone, the record has the environment %q, want that of the shell", shell)
	}
	c.start()
	c.stop()
	if shell, added := environ(); shell != "" || added != "ADDED=1" {
		t.Errorf("a master's record has the environment %q and %q, want only what the user has added", shell, added)
	}
}

// TestContextOfAnotherCluster has a user go over to another cluster, and back: the token of the first one was told once.
func TestContextOfAnotherCluster(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	file, err := node.ContextFile()
	if err != nil {
		t.Fatal(err)
	}
	made := func() trust.Context {
		a, err := trust.OpenAuthority(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := a.MakeToken(trust.TokenSpec{Role: trust.RoleAdmin})
		if err != nil {
			t.Fatal(err)
		}
		c := trust.Context{Master: []string{"boss:7420"}, Token: token.Bearer(), Role: trust.RoleAdmin}
		c.SetAuthority(a.CA())
		return c
	}
	first, second := made(), made()
	for _, step := range []struct {
		save trust.Context
		kept string // the token that the file beside it has
	}{{first, ""}, {first, ""}, {second, first.Token}, {first, second.Token}} {
		kept, err := node.SaveContext(step.save)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := trust.LoadContext(file); err != nil || got.Token != step.save.Token {
			t.Errorf("got context %+v, %v", got, err)
		}
		if (kept == "") != (step.kept == "") {
			t.Errorf("kept %q, want a file: %v", kept, step.kept != "")
		}
		if kept == "" {
			continue
		}
		if got, err := trust.LoadContext(kept); err != nil || got.Token != step.kept {
			t.Errorf("kept %+v, %v, want the other cluster's", got, err)
		}
	}
}

package main

import (
	"testing"

	"mlfnode/cluster/trust"
	"mlfnode/node"
)

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

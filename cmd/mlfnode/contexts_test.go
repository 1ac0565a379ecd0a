package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cluster/trust"
	"mlfnode/node"
)

// TestContextOfAnotherCluster has a user go over to another cluster, and back: the token of the
// first one was told once.
func TestContextOfAnotherCluster(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	file, err := node.ContextFile()
	if err != nil {
		t.Fatal(err)
	}
	first, second := newContext(t), newContext(t)
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

// TestContexts lists the clusters of a user, and goes from one to the other and back by all names
// that a cluster has.
func TestContexts(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	mlfnode := func(code int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if got := run(t.Context(), &interrupts{}, append([]string{"context"}, args...), &out, &out); got != code {
			t.Fatalf("context %q: got exit code %d, want %d\n%s", args, got, code, &out)
		}
		return out.String()
	}
	if said := mlfnode(0); !strings.Contains(said, "you have no access to any cluster") {
		t.Errorf("without one: got %q", said)
	}
	tokens := map[string]string{}
	for _, master := range []string{"one:7420", "two:7420"} {
		c := newContext(t)
		c.Master = []string{master}
		if _, err := node.SaveContext(c); err != nil {
			t.Fatal(err)
		}
		tokens[master] = c.Token
	}
	current := func() (id string) {
		t.Helper()
		var all []contextShown
		text := mlfnode(0, "--json")
		if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 2 || !all[0].Current || all[1].Current {
			t.Fatalf("got %s, %v, want two contexts, the first the current one", text, err)
		}
		for _, token := range tokens {
			if strings.Contains(text, token) {
				t.Errorf("the list has a secret: %s", text)
			}
		}
		file, err := node.ContextFile()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := trust.LoadContext(file); err != nil || c.Token != tokens[all[0].Master[0]] {
			t.Errorf("commands have %+v, %v, want the token of %s", c, err, all[0].Master[0])
		}
		return all[1].ID
	}
	other := current()
	for _, name := range []string{other, "two", "one:7420"} {
		mlfnode(0, "use", name)
		current()
	}
	tokens["three:7420"] = tokens["one:7420"]
	mlfnode(0, "use", "one", "--master", "three")
	current()
	if said := mlfnode(2, "use", "one"); !strings.Contains(said, `you have no access to a cluster "one"`) {
		t.Errorf("of an address that has changed: got %q", said)
	}
}

// TestOneContextOfEachCluster goes from one cluster to another and back with their tokens, as token
// use does, and finds each cluster once, also where a kill or an older version has left a second
// file of one.
func TestOneContextOfEachCluster(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	file, err := node.ContextFile()
	if err != nil {
		t.Fatal(err)
	}
	first, second := newContext(t), newContext(t)
	first.Master, second.Master = []string{"one:7420"}, []string{"two:7420"}
	for _, c := range []trust.Context{first, second, first} {
		if _, err := node.SaveContext(c); err != nil {
			t.Fatal(err)
		}
	}
	beside := filepath.Join(filepath.Dir(file), "context-*.yaml")
	if kept, err := filepath.Glob(beside); err != nil || len(kept) != 1 {
		t.Errorf("got the files %q, %v, want one of the other cluster", kept, err)
	}
	if err := trust.SaveContext(filepath.Join(filepath.Dir(file), "context-left.yaml"), first); err != nil {
		t.Fatal(err)
	}
	if all, err := node.Contexts(); err != nil || len(all) != 2 || all[0].Master[0] != "one:7420" ||
		all[1].Master[0] != "two:7420" {
		t.Errorf("got %+v, %v, want each cluster once, the current one first", all, err)
	}
	for _, name := range []string{"one", "two", "one"} {
		var out bytes.Buffer
		if code := run(t.Context(), &interrupts{}, []string{"context", "use", name}, &out, &out); code != 0 {
			t.Errorf("context use %s: got exit code %d\n%s", name, code, &out)
		}
	}
	if kept, err := filepath.Glob(beside); err != nil || len(kept) != 1 {
		t.Errorf("in the end got the files %q, %v, want one", kept, err)
	}
}

// newContext is access to a new cluster.
func newContext(t *testing.T) trust.Context {
	t.Helper()
	a, err := trust.OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.MakeToken(trust.TokenSpec{Role: trust.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	c := trust.Context{Master: []string{"boss:7420"}, Token: token.Bearer(), Role: trust.RoleAdmin}
	c.SetAuthorities(a.CAs())
	return c
}

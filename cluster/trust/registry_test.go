package trust

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"mlfnode/grid"
)

func TestForget(t *testing.T) {
	a, _, h := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	dir := t.TempDir()
	old, answer, err := join(a, dir, token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "drain", storeData(a, "w1", `{"on":true}`), nil)
	wantErr(t, "forget", a.Forget("w1"), nil)
	wantErr(t, "known", a.Known("w1", old.Leaf()), ErrUnknownNode)
	wantText(t, "known", a.Known("w1", old.Leaf()), "it was forgotten on")
	wantErr(t, "forget again", a.Forget("w1"), nil)
	wantErr(t, "forget nobody", a.Forget("w9"), ErrUnknownNode)
	wantErr(t, "drain", storeData(a, "w1", `{"on":true}`), ErrUnknownNode)
	_, err = a.CheckAccess(answer.Access)
	wantErr(t, "the access token of the join", err, ErrRevoked)

	b := openAuthority(t, a.dir, h.clock)
	wantErr(t, "after a restart", b.Known("w1", old.Leaf()), ErrUnknownNode)
	fresh, _, err := join(b, t.TempDir(), token, "w1") // another machine
	if err != nil || b.Known("w1", fresh.Leaf()) != nil || b.NodeData("w1") != nil {
		t.Errorf("got %v, drains %v, want the free name without its old drain", err, b.NodeData("w1"))
	}
	wantText(t, "the old machine", b.Known("w1", old.Leaf()), "another machine has the name now")
	wantErr(t, "forget", b.Forget("w1"), nil)
	again, _, err := join(b, dir, token, "w1") // the old machine, with its old key
	if err != nil || b.Known("w1", again.Leaf()) != nil {
		t.Errorf("got %v, want the old machine back", err)
	}
}

// TestForgetIsCutOff makes each write of Forget fail: repeating Forget completes it, and no token
// of the node stays valid.
func TestForgetIsCutOff(t *testing.T) {
	for _, name := range []string{nodesFile, tokensFile} {
		a, _, h := newAuthority(t)
		_, answer, err := join(a, t.TempDir(), makeToken(t, a, TokenSpec{Role: RoleNode}), "w1")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(a.dir, name)
		// A file cannot replace a folder.
		if err := errors.Join(os.Rename(path, path+"-away"), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := a.Forget("w1"); err == nil {
			t.Fatalf("%s can't be written: got no error", name)
		}
		if err := errors.Join(os.Remove(path), os.Rename(path+"-away", path)); err != nil {
			t.Fatal(err)
		}
		b := openAuthority(t, a.dir, h.clock)
		if _, err := b.CheckAccess(answer.Access); err == nil && !b.Has("w1") {
			t.Errorf("%s could not be written: the node is forgotten, and its access token is good", name)
		}
		wantErr(t, "forget again", b.Forget("w1"), nil)
		_, err = b.CheckAccess(answer.Access)
		wantErr(t, "the access token after the second try", err, ErrRevoked)
		if b.Has("w1") {
			t.Errorf("%s could not be written at first: the node is still in the cluster", name)
		}
	}
}

// TestForgottenUse lets a forgotten machine ask again with the token that it joined with, whose
// uses are all spent.
func TestForgottenUse(t *testing.T) {
	for _, old := range []bool{false, true} { // records of older versions hold only the key
		a, _, _ := newAuthority(t)
		token := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 1})
		ask := request(t, a, token, "w1")
		if _, err := a.Join(ask); err != nil {
			t.Fatal(err)
		}
		if old {
			wantErr(t, "rewrite", a.tokens.change(func(all map[string]tokenRecord) error {
				r := all[token.ID]
				r.Keys = []string{a.nodes.all()["w1"].Key}
				all[token.ID] = r
				return nil
			}), nil)
		}
		wantErr(t, "forget", a.Forget("w1"), nil)
		_, err := a.Join(ask)
		wantErr(t, "the forgotten machine", err, ErrExpired)
		_, err = a.Join(request(t, a, token, "w1"))
		wantErr(t, "another machine", err, ErrExpired)
		if a.Has("w1") {
			t.Error("the forgotten machine is back")
		}
	}
}

func TestKnown(t *testing.T) {
	a, master, _ := newAuthority(t)
	w1, _ := mustJoin(t, a, "w1")
	w2, _ := mustJoin(t, a, "w2")
	for _, c := range []struct {
		node grid.NodeID
		id   *Identity
		good bool
	}{{"master", master, true}, {"w1", w1, true}, {"w2", w2, true}, {"w1", w2, false}, {"master", w1, false},
		{"w9", w1, false}, {"", w1, false}} {
		if err := a.Known(c.node, c.id.Leaf()); (err == nil) != c.good {
			t.Errorf("%s with the certificate of %s: got %v, want good %v", c.node, c.id.Node, err, c.good)
		}
	}
	wantErr(t, "the CA itself", a.Known("w1", a.CA()), ErrUnknownNode)
}

func TestNodeData(t *testing.T) {
	a, _, h := newAuthority(t)
	mustJoin(t, a, "w1")
	wantErr(t, "store", storeData(a, "w1", `{"on":true}`), nil)
	refused := errors.New("refused")
	wantErr(t, "an edit that fails", a.EditNodeData("w1", func(json.RawMessage) (json.RawMessage, error) {
		return nil, refused
	}), refused)
	got := openAuthority(t, a.dir, h.clock).NodeData("w1")
	var stored struct{ On bool }
	if err := json.Unmarshal(got, &stored); err != nil || !stored.On {
		t.Errorf("after a restart: got %s, %v", got, err)
	}
	nodes := a.Nodes()
	if len(nodes) != 2 || nodes[0].Node != "master" || nodes[0].Role != grid.Master {
		t.Errorf("got nodes %+v", nodes)
	}
	wantErr(t, "remove", storeData(a, "w1", ""), nil)
	if got := a.NodeData("w1"); len(got) != 0 {
		t.Errorf("got %s of a removed value", got)
	}
}

func storeData(a *Authority, node grid.NodeID, text string) error {
	return a.EditNodeData(node, func(json.RawMessage) (json.RawMessage, error) { return json.RawMessage(text), nil })
}

// TestRegistryBound checks that the registry does not grow without bound, whoever has a token.
func TestRegistryBound(t *testing.T) {
	all := map[string]nodeRecord{"w": {Key: "k", Role: grid.Worker}}
	for i := range mostNodes {
		all["n"+string(rune('A'+i%26))+string(rune('0'+i/26))] = nodeRecord{}
	}
	wantText(t, "one more", checkName(all, "more", grid.Worker, "x"), "no room for more")
	wantErr(t, "one that is there", checkName(all, "w", grid.Worker, "k"), nil)
}

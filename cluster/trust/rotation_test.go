package trust

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mlfnode/grid"
)

// follow does what a node and the master do after a step of a rotation.
func follow(t *testing.T, a *Authority, master, id *Identity, dir string) {
	t.Helper()
	wantErr(t, "the master itself", a.RenewSelf(master), nil)
	for range 2 {
		renew(t, a, id, dir)
	}
	if renew(t, a, id, dir) {
		t.Errorf("%s: asked a third time and got something new", a.Stage())
	}
}

func TestRotation(t *testing.T) {
	a, master, _ := newAuthority(t)
	w1, dir := mustJoin(t, a, "w1")
	away, awayDir := mustJoin(t, a, "away")
	old, founder := a.CA(), a.Pin()
	oldToken := makeToken(t, a, TokenSpec{Role: RoleNode})
	thief := forge(t, a, func(*x509.Certificate) {}) // anyone with the old CA's key can sign a master's certificate
	var learnt CAs
	person := a.CAs().Client(func(cas CAs) { learnt = cas })
	server, gossips := master.APIServer(a.Known), master.NATSServer(a.Known)
	talk := func(what string, id *Identity) {
		t.Helper()
		s, c := meet(t, server, person)
		wantTalk(t, what+", a person", s, c)
		for _, id := range []*Identity{id, master} {
			s, c = meet(t, gossips, id.Client())
			wantTalk(t, what+", "+string(id.Node), s, c)
		}
	}
	for _, step := range []func() error{a.Switch, a.Retire} {
		wantErr(t, "too early", step(), ErrStage)
	}

	wantErr(t, "rotate", a.Rotate(), nil)
	wantErr(t, "rotate again", a.Rotate(), ErrStage)
	if got := a.Behind(); !slices.Equal(got, []grid.NodeID{"away", "w1"}) || a.Stage() != Announced ||
		a.Pin() != founder {
		t.Errorf("announced: got %s with %v behind", a.Stage(), got)
	}
	talk("before the node knows", w1)
	follow(t, a, master, w1, dir)
	talk("announced", w1)
	if got := a.Behind(); !slices.Equal(got, []grid.NodeID{"away"}) || !learnt.equal(a.CAs()) || len(learnt) != 2 {
		t.Errorf("announced: got %v behind, and a person learns %d CAs", got, len(learnt))
	}

	wantErr(t, "switch", a.Switch(), nil)
	talk("before the master has its certificate", w1)
	wantErr(t, "the master itself", a.RenewSelf(master), nil)
	talk("before the node has its certificate", w1)
	follow(t, a, master, w1, dir)
	talk("switched", w1)
	if got := a.Behind(); !slices.Equal(got, []grid.NodeID{"away"}) || w1.Leaf().CheckSignatureFrom(a.CA()) != nil ||
		a.CA().Equal(old) {
		t.Errorf("switched: got %v behind", got)
	}
	for what, client := range map[string]*tls.Config{"a node that was away": away.Client(),
		"an old token": oldToken.Pin.Client()} {
		s, c := meet(t, server, client)
		wantSilence(t, what, s, c)
		wantErr(t, what, c.err, ErrRotated)
	}

	wantErr(t, "retire", a.Retire(), nil)
	follow(t, a, master, w1, dir)
	talk("retired", w1)
	if a.Stage() != Settled || len(w1.Trusted()) != 1 || len(learnt) != 1 || w1.Cluster != founder ||
		master.Cluster != founder {
		t.Errorf("retired: got %s, %d CAs of a node, %d of a person", a.Stage(), len(w1.Trusted()), len(learnt))
	}
	wantErr(t, "a node that was away", a.Known("away", away.Leaf()), ErrUnknownNode)
	for what, server := range map[string]*tls.Config{"the API": server, "NATS": gossips} {
		s, c := meet(t, server, away.Client())
		wantSilence(t, "away at "+what, s, c)
		trusting := &Identity{CAs: a.CAs(), Cert: thief.Cert} // a node that trusts the thief
		s, c = meet(t, server, trusting.Client())
		wantSilence(t, "the thief at "+what, s, c)
	}
	s, c := meet(t, thief.APIServer(nil), w1.Client())
	wantSilence(t, "the thief as a master", s, c)
	s, c = meet(t, thief.APIServer(nil), person)
	wantSilence(t, "the thief as a master of people", s, c)

	// The node joins again under its name, and so does a new one; all know which cluster it is.
	again, _, err := join(a, awayDir, makeToken(t, a, TokenSpec{Role: RoleNode}), "away")
	if err != nil {
		t.Fatal(err)
	}
	talk("joined again", again)
	w2, dir2 := mustJoin(t, a, "w2")
	loaded, err := LoadIdentity(dir2)
	if err != nil || w2.Cluster != founder || again.Cluster != founder || loaded.Cluster != founder {
		t.Errorf("got %v, and another cluster than that of %s", err, founder)
	}
	if got := a.Behind(); len(got) != 0 {
		t.Errorf("got %v behind, want none", got)
	}
	wantErr(t, "a second rotation", errors.Join(a.Rotate(), a.RenewSelf(master)), nil)
	follow(t, a, master, w2, dir2)
	b := openAuthority(t, a.dir, a.clock)
	id, err := b.IssueSelf("master")
	if err != nil || id.Cluster != founder || b.Stage() != Announced || slices.Contains(b.Behind(), "w2") ||
		!id.Leaf().Equal(master.Leaf()) {
		t.Errorf("opened again: got %v, %s with %v behind", err, b.Stage(), b.Behind())
	}
}

// TestRotationKilled interrupts each step of a rotation between any two of its files, on the master
// and on a node.
func TestRotationKilled(t *testing.T) {
	a, master, _ := newAuthority(t)
	w1, dir := mustJoin(t, a, "w1")
	all := func(string) bool { return true }
	for _, step := range []struct {
		what  string
		do    func() error
		files []string // in the order in which they are written
	}{
		{"rotate", a.Rotate, []string{clusterFile, caKeyFile, caCertFile, nodesFile, nodeCertFile}},
		{"switch", a.Switch, []string{caCertFile, caKeyFile, nodesFile, nodeCertFile}},
		{"retire", a.Retire, []string{caCertFile, caKeyFile, nodesFile, nodeCertFile}},
	} {
		before, nodeBefore := keepFiles(t, a.dir, all), keepFiles(t, dir, all)
		wantErr(t, step.what, step.do(), nil)
		follow(t, a, master, w1, dir)
		for n := range len(step.files) + 1 {
			what := fmt.Sprintf("%s, killed after %d of %v", step.what, n, step.files)
			cut := overlay(t, before, a.dir, step.files[:n])
			b, err := OpenAuthority(cut, a.clock)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			id, err := b.IssueSelf("master")
			if err != nil || b.cluster != a.cluster || b.Known("w1", w1.Leaf()) != nil {
				t.Errorf("%s: got %v, want the cluster as it was", what, err)
				continue
			}
			keys, err := readKeys(filepath.Join(cut, caKeyFile))
			if err != nil || len(keys) != len(b.issuers.Load().cas) {
				t.Errorf("%s: got %d keys, %v, want none left over", what, len(keys), err)
			}
			if len(b.CAs()) == len(a.CAs()) {
				continue
			}
			for range 3 { // the rotation continues
				switch b.Stage() {
				case Settled:
					err = b.Rotate()
				case Announced:
					err = b.Switch()
				case Switched:
					err = b.Retire()
				}
				wantErr(t, what, errors.Join(err, b.RenewSelf(id)), nil)
			}
		}
		files := []string{clusterFile, caCertFile, nodeCertFile}
		for n := range len(files) + 1 {
			id, err := LoadIdentity(overlay(t, nodeBefore, dir, files[:n]))
			if err != nil || id.Cluster != a.cluster {
				t.Errorf("%s on a node, killed after %d of %v: %v", step.what, n, files, err)
			}
		}
	}
}

// overlay copies a folder, but takes some of the files from another one.
func overlay(t *testing.T, from, other string, files []string) string {
	t.Helper()
	dir := keepFiles(t, from, func(string) bool { return true })
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestLearn stores new CAs in a context, if they belong to its cluster, and keeps the token.
func TestLearn(t *testing.T) {
	c, a, _ := newContext(t)
	path := filepath.Join(t.TempDir(), "context.yaml")
	wantErr(t, "save", SaveContext(path, c), nil)
	other, _, _ := newAuthority(t)
	wantErr(t, "rotate", a.Rotate(), nil)
	for _, cas := range []CAs{a.CAs(), other.CAs()} {
		wantErr(t, "learn", Learn(path, cas), nil)
	}
	got, err := LoadContext(path)
	if err != nil || got.CA != string(a.CAs().pem()) || got.Token != c.Token || !got.OfSame(c) {
		t.Errorf("got %+v, %v, want both CAs", got, err)
	}
	wantErr(t, "learn from nothing", Learn(path+"-", a.CAs()), ErrNoContext)
	if _, err := decodeCAs(bytes.Repeat(a.CAs().pem(), 3)); err == nil {
		t.Error("got a cluster of six CAs")
	}
}

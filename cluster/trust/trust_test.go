package trust

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
)

// hand is a clock that a test sets.
type hand struct {
	mu  sync.Mutex
	now time.Time
}

func newHand() *hand { return &hand{now: time.Now()} }

func (h *hand) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hand) turn(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func openAuthority(t testing.TB, dir string, clock func() time.Time) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir, clock)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newAuthority creates a cluster whose master is called master.
func newAuthority(t testing.TB) (*Authority, *Identity, *hand) {
	t.Helper()
	h := newHand()
	a := openAuthority(t, filepath.Join(t.TempDir(), "trust"), h.clock)
	id, err := a.IssueSelf("master")
	if err != nil {
		t.Fatal(err)
	}
	return a, id, h
}

func makeToken(t testing.TB, a *Authority, spec TokenSpec) Token {
	t.Helper()
	made, err := a.MakeToken(spec)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseToken(made.Text())
	if err != nil || read != made {
		t.Fatalf("got token %v, %v from the text of %v", read, err, made)
	}
	return read
}

// join performs the complete join of a machine with the given folder.
func join(a *Authority, dir string, token Token, node grid.NodeID) (*Identity, JoinAnswer, error) {
	j, err := NewJoin(dir, token, node)
	if err != nil {
		return nil, JoinAnswer{}, err
	}
	answer, err := a.Join(j.Request())
	if err != nil {
		return nil, answer, err
	}
	id, err := j.Accept(answer)
	return id, answer, err
}

func mustJoin(t testing.TB, a *Authority, node grid.NodeID) (*Identity, string) {
	t.Helper()
	dir := t.TempDir()
	id, _, err := join(a, dir, makeToken(t, a, TokenSpec{Role: RoleNode}), node)
	if err != nil {
		t.Fatal(err)
	}
	return id, dir
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || (want == nil) != (got == nil) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func wantText(t testing.TB, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got error %v, want one with %q", what, err, text)
	}
}

func TestCheckNodeName(t *testing.T) {
	for name, good := range map[grid.NodeID]bool{
		"a": true, "gpu-1_B": true, grid.NodeID(strings.Repeat("x", 63)): true,
		"": false, grid.NodeID(strings.Repeat("x", 64)): false, "a.b": false, "a b": false, "a/b": false,
		"a?role=master": false,
		"a\n":           false, "ä": false, ">": false, "*": false, "a\x00": false,
	} {
		if err := CheckNodeName(name); (err == nil) != good {
			t.Errorf("name %q: got error %v, want good %v", name, err, good)
		}
	}
}

func TestParseRole(t *testing.T) {
	for text, good := range map[string]bool{"node": true, "operator": true, "viewer": true, "none": false,
		"": false, "Node": false} {
		if r, err := ParseRole(text); (err == nil) != good || (good && string(r) != text) {
			t.Errorf("role %q: got %q, %v, want good %v", text, r, err, good)
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	a, _, _ := newAuthority(t)
	_, worker := mustJoin(t, a, "w1")
	for _, dir := range []string{a.dir, worker} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 4 {
			t.Fatalf("got %d files, %v in a trust folder", len(entries), err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: got mode %v, %v, want 0600", e.Name(), info.Mode(), err)
			}
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("trust folder: got mode %v, %v, want 0700", info.Mode(), err)
		}
	}
}

// TestExposedFilesAreRefused checks that files that others can read are rejected. The folder itself
// is made private silently, because its files are checked.
func TestExposedFilesAreRefused(t *testing.T) {
	a, _, _ := newAuthority(t)
	if err := os.Chmod(a.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	openAuthority(t, a.dir, nil)
	if info, err := os.Stat(a.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("trust folder: got mode %v, %v, want 0700", info.Mode(), err)
	}
	for _, name := range []string{caKeyFile, keyringFile, tokensFile, nodesFile} {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
			path := filepath.Join(a.dir, name)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := OpenAuthority(a.dir, nil)
			wantText(t, name, err, "chmod 600 "+path)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(a.dir, nodeKeyFile)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := LoadIdentity(a.dir)
	wantText(t, nodeKeyFile, err, "chmod 600 "+path)
}

func TestIssueSelf(t *testing.T) {
	a, id, h := newAuthority(t)
	if id.Node != "master" || id.Role != grid.Master || a.Known("master", id.Leaf()) != nil {
		t.Errorf("got %s %s, want the known master master", id.Node, id.Role)
	}
	b := openAuthority(t, a.dir, h.clock)
	again, err := b.IssueSelf("master")
	if err != nil || !again.Leaf().Equal(id.Leaf()) {
		t.Errorf("got another certificate, %v after a restart", err)
	}
	for _, name := range []string{nodeKeyFile, nodeCertFile} { // the name stays the master's
		if err := os.Remove(filepath.Join(a.dir, name)); err != nil {
			t.Fatal(err)
		}
		fresh, err := b.IssueSelf("master")
		if err != nil || b.Known("master", fresh.Leaf()) != nil || b.Known("master", id.Leaf()) == nil {
			t.Errorf("after the loss of %s: got %v, want a new certificate in place of the old", name, err)
		}
	}
	if _, dir := mustJoin(t, b, "w1"); dir != "" {
		_, err := b.IssueSelf("w1")
		wantErr(t, "a worker's name", err, ErrNameTaken)
	}
	renamed, err := b.IssueSelf("chief")
	if err != nil || renamed.Node != "chief" {
		t.Errorf("got %v, want a certificate under the new name", err)
	}
	wantErr(t, "forget the old name", b.Forget("master"), nil)
	wantText(t, "forget itself", b.Forget("chief"), "this master itself")
	if _, err := b.IssueSelf("a b"); err == nil {
		t.Error("got a certificate for a bad name")
	}
}

func TestAuthorityCertificate(t *testing.T) {
	a, id, h := newAuthority(t)
	ca := a.CA()
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("got CA %v, path length %d, usage %v, want one that signs nodes only", ca.IsCA, ca.MaxPathLen,
			ca.KeyUsage)
	}
	for c, want := range map[*x509.Certificate]float64{ca: 20, id.Leaf(): 1} {
		if back := h.clock().Sub(c.NotBefore); back < 23*time.Hour || back > 25*time.Hour {
			t.Errorf("got a certificate dated back by %s, want a day", back)
		}
		if years := c.NotAfter.Sub(h.clock()).Hours() / 24 / 365; years < want-0.1 || years > want+0.1 {
			t.Errorf("got a certificate for %.1f years, want %.0f", years, want)
		}
	}
	if err := id.Leaf().VerifyHostname(ServerName); err != nil {
		t.Errorf("programs that know no pins can't verify a master: %v", err)
	}
	other, _, _ := newAuthority(t)
	if string(other.CA().RawSubject) == string(ca.RawSubject) || other.Pin() == a.Pin() {
		t.Error("got two clusters with one name or one pin")
	}
	_, err := OpenAuthority(t.TempDir(), func() time.Time { return time.Unix(0, 0) })
	wantText(t, "a clock that was never set", err, "clock says 1970-01-01; set it")
}

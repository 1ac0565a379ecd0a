package trust

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
)

func renew(t *testing.T, a *Authority, id *Identity, dir string) bool {
	t.Helper()
	r, err := a.Renew(id.Leaf(), id.RenewalRequest())
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := id.Renew(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

// TestRenew goes through three lifetimes of a certificate, with connections all the time.
func TestRenew(t *testing.T) {
	a, master, h := newAuthority(t)
	w1, dir := mustJoin(t, a, "w1")
	w1.Clock = h.clock
	var shown, served *x509.Certificate
	server, client := master.NATSServer(func(node grid.NodeID, cert *x509.Certificate) error {
		shown = cert
		return a.Known(node, cert)
	}), w1.Client()
	verify := client.VerifyConnection
	client.VerifyConnection = func(s tls.ConnectionState) error {
		served = s.PeerCertificates[0]
		return verify(s)
	}
	for life := range 3 {
		h.turn(nodeLifetime/3*2 - time.Hour)
		if renew(t, a, w1, dir) {
			t.Errorf("life %d: renewed before two thirds of it", life)
		}
		h.turn(2 * time.Hour)
		old := w1.Leaf()
		if !renew(t, a, w1, dir) || renew(t, a, w1, dir) {
			t.Errorf("life %d: got no new certificate, or two", life)
		}
		if err := a.RenewSelf(master); err != nil {
			t.Fatal(err)
		}
		kept, err := LoadIdentity(dir)
		if err != nil || !kept.Leaf().Equal(w1.Leaf()) || w1.Leaf().Equal(old) || w1.Expired() {
			t.Fatalf("life %d: got %v, want the new certificate on the disk", life, err)
		}
		s, c := meet(t, server, client)
		if s.err != nil || c.err != nil || !shown.Equal(w1.Leaf()) || !served.Equal(master.Leaf()) {
			t.Fatalf("life %d: got %v and %v, want a connection with the new certificates", life, s.err, c.err)
		}
	}
	// First an answer is lost, then a machine is off for too long.
	h.turn(nodeLifetime / 3 * 2)
	if _, err := a.Renew(w1.Leaf(), w1.RenewalRequest()); err != nil {
		t.Fatal(err)
	}
	if !renew(t, a, w1, dir) {
		t.Error("asked again: got no certificate")
	}
	h.turn(nodeLifetime + time.Hour)
	if err := a.RenewSelf(master); err != nil {
		t.Fatal(err)
	}
	s, _ := meet(t, server, client)
	if !w1.Expired() || s.err == nil {
		t.Errorf("expired: %v, and the master says %v", w1.Expired(), s.err)
	}
	j, err := NewJoin(dir, makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 1}), "w1")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := a.Join(j.Request())
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParseCertificate(answer.Certificate)
	if err != nil || a.Known("w1", again) != nil || RenewalDue(again).Before(h.clock()) {
		t.Errorf("got %v, want a node that is known again", err)
	}
}

// TestRenewRefused asks for certificates of other nodes.
func TestRenewRefused(t *testing.T) {
	a, master, h := newAuthority(t)
	other, _, _ := newAuthority(t)
	w1, dir := mustJoin(t, a, "w1")
	w2, _ := mustJoin(t, a, "w2")
	stranger, _ := mustJoin(t, other, "w1")
	h.turn(nodeLifetime / 4 * 3)
	wantErr(t, "forget", a.Forget("w1"), nil)
	for what, cert := range map[string]*x509.Certificate{"forgotten": w1.Leaf(),
		"of another cluster": stranger.Leaf()} {
		_, err := a.Renew(cert, RenewalRequest{})
		wantErr(t, what, err, ErrUnknownNode)
	}
	if _, err := a.Renew(a.CA(), RenewalRequest{}); err == nil {
		t.Error("the CA itself: got a certificate")
	}
	r, err := a.Renew(w2.Leaf(), RenewalRequest{})
	if err != nil {
		t.Fatal(err)
	}
	before := w1.Leaf()
	for what, answer := range map[string]Renewal{"another node's": r, "the master's": {Certificate: master.Leaf().Raw},
		"garbage": {Certificate: []byte("x")}} {
		if _, err := w1.Renew(dir, answer); err == nil {
			t.Errorf("%s: taken over", what)
		}
	}
	if kept, err := LoadIdentity(dir); err != nil || !kept.Leaf().Equal(before) || !w1.Leaf().Equal(before) {
		t.Errorf("got %v, want the old certificate", err)
	}
	w2.Clock = h.clock
	gone := filepath.Join(t.TempDir(), "file", "trust") // a folder cannot exist below a file
	if err := os.WriteFile(filepath.Dir(gone), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w2.Renew(gone, r); err == nil || w2.Leaf().Equal(before) {
		t.Error("used a certificate that is not on the disk")
	}
}

// TestRenewBesideWrites renews the master's certificate while machines join.
func TestRenewBesideWrites(t *testing.T) {
	a, master, h := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	var joining sync.WaitGroup
	for i := range 4 {
		joining.Go(func() {
			for k := range 10 {
				if _, err := a.Join(request(t, a, token, grid.NodeID(fmt.Sprintf("w%d-%d", i, k)))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 40 {
		h.turn(nodeLifetime / 4 * 3)
		if err := a.RenewSelf(master); err != nil {
			t.Error(err)
		}
		h.turn(-nodeLifetime / 4 * 3)
	}
	joining.Wait()
}

// TestClockThatJumpedForward renews the master's certificate while its clock is wrong, in a running
// master and across a restart.
func TestClockThatJumpedForward(t *testing.T) {
	const jump = 20 * nodeLifetime / 24
	for what, renew := range map[string]func(*Authority, *Identity) (*Identity, error){
		"a running master": func(a *Authority, id *Identity) (*Identity, error) { return id, a.RenewSelf(id) },
		"a restart":        func(a *Authority, id *Identity) (*Identity, error) { return a.IssueSelf(id.Node) },
	} {
		a, master, h := newAuthority(t)
		h.turn(jump)
		id, err := renew(a, master)
		if err != nil || id.Leaf().NotBefore.Before(h.clock().Add(-nodeLifetime/24)) {
			t.Fatalf("%s: got a certificate from %s, %v, want a new one", what, id.Leaf().NotBefore, err)
		}
		h.turn(-jump)
		if id, err = renew(a, id); err != nil || h.clock().Before(id.Leaf().NotBefore) {
			t.Errorf("%s: the clock is right again, and the certificate is good from %s, %v", what, id.Leaf().NotBefore,
				err)
		}
	}
}

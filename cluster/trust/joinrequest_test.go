package trust

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
)

func TestJoin(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	dir := t.TempDir()
	_, err := LoadIdentity(dir)
	wantErr(t, "before", err, ErrNoIdentity)
	id, answer, err := join(a, dir, token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	if id.Node != "w1" || id.Role != grid.Worker || a.Known("w1", id.Leaf()) != nil {
		t.Errorf("got %s %s, want the known worker w1", id.Node, id.Role)
	}
	loaded, err := LoadIdentity(dir)
	if err != nil || !loaded.Leaf().Equal(id.Leaf()) || !loaded.CAs.equal(a.CAs()) {
		t.Errorf("got another identity from the disk: %v", err)
	}
	ring, err := LoadKeyring(dir)
	if err != nil || !slices.EqualFunc(ring.Keys(), a.Keyring().Keys(), slices.Equal) {
		t.Errorf("got another keyring from the disk: %v", err)
	}
	g, err := a.CheckAccess(answer.Access)
	if err != nil || g.Role != RoleOperator || answer.Role != RoleOperator || g.Node != "w1" {
		t.Errorf("got access %+v, %v, want an operator's", g, err)
	}
	if !missing(dir + "/" + joinKeyFile) {
		t.Error("the key of the join is still there")
	}
	_, err = NewJoin(a.dir, token, "w2")
	wantText(t, "join in a master's folder", err, "belongs to the master")
	_, err = OpenAuthority(dir, nil)
	wantText(t, "master in a worker's folder", err, "ca.key is missing")
}

func TestUserOfJoin(t *testing.T) {
	a, _, _ := newAuthority(t)
	for user, want := range map[Role]Role{"": RoleOperator, RoleOperator: RoleOperator, RoleViewer: RoleViewer} {
		token := makeToken(t, a, TokenSpec{Role: RoleNode, User: user})
		_, answer, err := join(a, t.TempDir(), token, grid.NodeID("w-"+string(user)))
		if err != nil {
			t.Fatal(err)
		}
		if g, err := a.CheckAccess(answer.Access); err != nil || g.Role != want || answer.Role != want {
			t.Errorf("user %q: got %+v, %v, want %s", user, g, err, want)
		}
	}
}

// request prepares a join and returns its request.
func request(t *testing.T, a *Authority, token Token, node grid.NodeID) JoinRequest {
	t.Helper()
	j, err := NewJoin(t.TempDir(), token, node)
	if err != nil {
		t.Fatal(err)
	}
	return j.Request()
}

func TestRefusedTokens(t *testing.T) {
	a, _, h := newAuthority(t)
	expired := makeToken(t, a, TokenSpec{Role: RoleNode, Expires: time.Minute})
	revoked := makeToken(t, a, TokenSpec{Role: RoleNode})
	operator := makeToken(t, a, TokenSpec{Role: RoleOperator})
	twice := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 2})
	wantErr(t, "revoke", a.Revoke(revoked.ID), nil)
	for _, node := range []grid.NodeID{"t1", "t2"} {
		if _, _, err := join(a, t.TempDir(), twice, node); err != nil {
			t.Fatal(err)
		}
	}
	h.turn(time.Minute)
	forged := func(token Token) Token { token.secret[5]++; return token }
	unknown := Token{Pin: a.Pin(), ID: "0000000000"}
	before := len(a.Nodes())
	for _, c := range []struct {
		what  string
		token Token
		want  error
	}{
		{"expired", expired, ErrExpired}, {"expired, wrong secret", forged(expired), ErrBadToken},
		{"revoked", revoked, ErrRevoked}, {"revoked, wrong secret", forged(revoked), ErrBadToken},
		{"operator", operator, ErrWrongRole}, {"operator, wrong secret", forged(operator), ErrBadToken},
		{"used up", twice, ErrExpired}, {"used up, wrong secret", forged(twice), ErrBadToken},
		{"unknown", unknown, ErrBadToken},
	} {
		_, err := a.Join(request(t, a, c.token, "w1"))
		wantErr(t, c.what, err, c.want)
	}
	if n := len(a.Nodes()); n != before {
		t.Errorf("got %d nodes, want %d", n, before)
	}
}

func TestTamperedRequests(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	for what, c := range map[string]struct {
		tamper func(*JoinRequest)
		want   error
	}{
		"secret":       {func(r *JoinRequest) { r.Token = r.Token[:len(r.Token)-4] + "AAAA" }, ErrBadToken},
		"no secret":    {func(r *JoinRequest) { r.Token = token.ID }, ErrBadToken},
		"empty secret": {func(r *JoinRequest) { r.Token = token.ID + "." }, ErrBadToken},
		"no token":     {func(r *JoinRequest) { r.Token = "" }, ErrBadToken},
		"whole token":  {func(r *JoinRequest) { r.Token = token.Text() }, ErrBadToken},
		"csr bit":      {func(r *JoinRequest) { r.CSR[len(r.CSR)-1]++ }, ErrBadRequest},
		"bad name":     {func(r *JoinRequest) { r.Node = "a.b" }, ErrBadRequest},
		"long csr":     {func(r *JoinRequest) { r.CSR = make([]byte, largestCSR+1) }, ErrBadRequest},
	} {
		r := request(t, a, token, "w1")
		r.CSR = slices.Clone(r.CSR)
		c.tamper(&r)
		_, err := a.Join(r)
		wantErr(t, what, err, c.want)
		if err != nil && strings.Contains(err.Error(), token.Bearer()) {
			t.Errorf("%s: the secret is in the error", what)
		}
	}
	if n := len(a.Nodes()); n != 1 {
		t.Errorf("got %d nodes, want the master alone", n)
	}
}

func csrOf(t *testing.T, template *x509.CertificateRequest, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestGreedyRequest checks that the issuer decides about the certificate, whatever a signing
// request asks for.
func TestGreedyRequest(t *testing.T) {
	a, _, h := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	csr := csrOf(t, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "master"}, DNSNames: []string{"master"},
		URIs: []*url.URL{nodeURI("master", grid.Master)},
		// A CA.
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true,
			Value: []byte{0x30, 3, 1, 1, 0xff}}},
	}, key)
	answer, err := a.Join(JoinRequest{Token: token.Bearer(), Node: "w1", CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(answer.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	node, role, err := nodeOf(cert)
	if err != nil || node != "w1" || role != grid.Worker || cert.Subject.CommonName != "w1" || cert.IsCA ||
		len(cert.DNSNames) > 0 {
		t.Errorf("got %s %s, %v for %q, CA %v, want the worker w1", node, role, err, cert.Subject, cert.IsCA)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("got usage %v, want client authentication alone", cert.ExtKeyUsage)
	}
	if a.Known("master", cert) == nil ||
		verify([]*x509.Certificate{cert}, a.CAs(), x509.ExtKeyUsageServerAuth, h.clock()) == nil {
		t.Error("got a certificate that passes for the master's")
	}
}

func TestForeignRequests(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	unsigned := csrOf(t, &x509.CertificateRequest{}, mine)
	unsigned[len(unsigned)-1] ^= 1
	for what, csr := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "ed25519": csrOf(t, &x509.CertificateRequest{}, edKey),
		"P-384": csrOf(t, &x509.CertificateRequest{}, wide), "another's signature": unsigned,
	} {
		_, err := a.Join(JoinRequest{Token: token.Bearer(), Node: "w1", CSR: csr})
		wantErr(t, what, err, ErrBadRequest)
	}
}

func TestNameTheft(t *testing.T) {
	a, master, _ := newAuthority(t)
	w1, _ := mustJoin(t, a, "w1")
	token := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 1})
	for _, name := range []grid.NodeID{"w1", "master"} {
		_, err := a.Join(request(t, a, token, name))
		wantErr(t, string(name), err, ErrNameTaken)
		wantText(t, string(name), err, "run mlfnode forget "+string(name)+" on the master")
		wantText(t, string(name), err, "--node")
	}
	if a.Known("w1", w1.Leaf()) != nil || a.Known("master", master.Leaf()) != nil {
		t.Error("the owner is not known any more")
	}
	_, _, err := join(a, t.TempDir(), token, "w2") // no use was counted
	wantErr(t, "another name", err, nil)
}

// TestJoinAgain checks that a machine that never received its answer can try again with its key,
// without a second use of the token, and has one access token.
func TestJoinAgain(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 1})
	dir := t.TempDir()
	j, err := NewJoin(dir, token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	lost, err := a.Join(j.Request())
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "drain", storeData(a, "w1", `{"on":true}`), nil)
	var last JoinAnswer
	for range 2 { // killed before the answer was stored, then after
		if _, last, err = join(a, dir, token, "w1"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = a.CheckAccess(lost.Access)
	wantErr(t, "the lost access token", err, ErrBadToken)
	_, err = a.CheckAccess(last.Access)
	wantErr(t, "the last access token", err, nil)
	if n := len(a.Tokens()); n != 2 || a.NodeData("w1") == nil {
		t.Errorf("got %d tokens and the drain %s, want 2 and one", n, a.NodeData("w1"))
	}
	_, _, err = join(a, t.TempDir(), token, "w2")
	wantErr(t, "another machine", err, ErrExpired)
}

func TestRevokedParent(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	other := makeToken(t, a, TokenSpec{Role: RoleOperator})
	id, answer, err := join(a, t.TempDir(), token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "revoke", a.Revoke(token.ID), nil)
	_, err = a.CheckAccess(answer.Access)
	wantErr(t, "the access token", err, ErrRevoked)
	_, err = a.CheckAccess(other.Bearer())
	wantErr(t, "an unrelated token", err, nil)
	wantErr(t, "the node", a.Known("w1", id.Leaf()), nil)
}

// TestAccept checks that a machine rejects an answer that does not match its request.
func TestAccept(t *testing.T) {
	a, master, _ := newAuthority(t)
	other, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode})
	dir := t.TempDir()
	j, err := NewJoin(dir, token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	good, err := a.Join(j.Request())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(by *Authority, node grid.NodeID, role grid.NodeRole) []byte {
		der, err := by.signNode(by.issuers.Load(), node, role, &j.key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for what, change := range map[string]func(*JoinAnswer){
		"another CA":          func(x *JoinAnswer) { x.CA = other.CA().Raw },
		"no CA":               func(x *JoinAnswer) { x.CA = nil },
		"another's key":       func(x *JoinAnswer) { x.Certificate = master.Leaf().Raw },
		"another name":        func(x *JoinAnswer) { x.Certificate = sign(a, "w2", grid.Worker) },
		"another role":        func(x *JoinAnswer) { x.Certificate = sign(a, "w1", grid.Master) },
		"another's signature": func(x *JoinAnswer) { x.Certificate = sign(other, "w1", grid.Worker) },
		"garbage":             func(x *JoinAnswer) { x.Certificate = []byte("x") },
		"no keyring":          func(x *JoinAnswer) { x.Keyring = nil },
		"a short key":         func(x *JoinAnswer) { x.Keyring = [][]byte{make([]byte, 16)} },
	} {
		answer := good
		change(&answer)
		if _, err := j.Accept(answer); err == nil {
			t.Errorf("%s: got an identity, want a refusal", what)
		}
		_, err := LoadIdentity(dir)
		wantErr(t, what, err, ErrNoIdentity)
	}
	_, err = j.Accept(good)
	wantErr(t, "the good answer", err, nil)
}

// TestMove checks that a machine that moves to another cluster keeps its old identity until it has
// the new one.
func TestMove(t *testing.T) {
	a, master, _ := newAuthority(t)
	b, _, _ := newAuthority(t)
	id, dir := mustJoin(t, a, "w1")
	token := makeToken(t, b, TokenSpec{Role: RoleNode})
	if _, err := NewJoin(dir, token, "w1"); err != nil {
		t.Fatal(err)
	}
	if old, err := LoadIdentity(dir); err != nil || !old.Leaf().Equal(id.Leaf()) {
		t.Errorf("got %v, want the old identity before the join has ended", err)
	}
	moved, _, err := join(b, dir, token, "w1")
	if err != nil || b.Known("w1", moved.Leaf()) != nil {
		t.Errorf("got %v, want a node of the other cluster", err)
	}
	s, c := meet(t, master.NATSServer(a.Known), moved.Client())
	wantSilence(t, "the old cluster", s, c)
}

// TestOneUseAtOnce lets two machines join at the same time with a token for one machine.
func TestOneUseAtOnce(t *testing.T) {
	for range 20 {
		a, _, _ := newAuthority(t)
		token := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 1})
		one, other := request(t, a, token, "w1"), request(t, a, token, "w2")
		errs := make(chan error, 6)
		var all sync.WaitGroup
		for range 3 { // each one several times, as after lost answers
			all.Go(func() { _, err := a.Join(one); errs <- err })
			all.Go(func() { _, err := a.Join(other); errs <- err })
		}
		all.Wait()
		close(errs)
		good := 0
		for err := range errs {
			if err == nil {
				good++
			} else {
				wantErr(t, "the other machine", err, ErrExpired)
			}
		}
		if n := len(a.Nodes()); good != 3 || n != 2 {
			t.Errorf("got %d answers and %d nodes, want those of one machine and the master", good, n)
		}
	}
}

// TestJoinAtOnce lets many machines join at once, some under the same name, with a token for fewer
// of them.
func TestJoinAtOnce(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 10})
	type outcome struct {
		id  *Identity
		err error
	}
	const machines = 30 // under 15 names
	outcomes := make(chan outcome, machines)
	var all sync.WaitGroup
	for i := range machines {
		dir := t.TempDir()
		all.Go(func() {
			id, _, err := join(a, dir, token, grid.NodeID(fmt.Sprintf("w%d", i/2)))
			outcomes <- outcome{id, err}
			a.Tokens()
			a.Nodes()
			a.CheckAccess(token.Bearer())
			a.Keyring().Keys()
		})
	}
	all.Wait()
	close(outcomes)
	joined := map[grid.NodeID]bool{}
	for o := range outcomes {
		switch {
		case o.err == nil && (joined[o.id.Node] || a.Known(o.id.Node, o.id.Leaf()) != nil):
			t.Errorf("%s joined twice, or is not known", o.id.Node)
		case o.err == nil:
			joined[o.id.Node] = true
		case !strings.Contains(o.err.Error(), ErrNameTaken.Error()):
			wantErr(t, "the others", o.err, ErrExpired)
		}
	}
	if len(joined) != 10 || len(a.Nodes()) != 11 {
		t.Errorf("got %d nodes that joined, %d in the registry, want 10 and 11", len(joined), len(a.Nodes()))
	}
}

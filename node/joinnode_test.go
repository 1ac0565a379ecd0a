package node_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"mlfnode/cluster/trust"
	"mlfnode/node"
	"mlfnode/node/api"
)

// TestTokenGoesToItsMasterOnly makes a machine join through servers that are not masters of the
// token's cluster, and records what it tells them.
func TestTokenGoesToItsMasterOnly(t *testing.T) {
	authority := func() (*trust.Authority, *trust.Identity) {
		a, err := trust.OpenAuthority(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := a.IssueSelf("master")
		if err != nil {
			t.Fatal(err)
		}
		return a, id
	}
	a, _ := authority()
	_, evil := authority()
	token, err := a.MakeToken(trust.TokenSpec{Role: trust.RoleNode})
	if err != nil {
		t.Fatal(err)
	}
	serve := func(chain tls.Certificate) *tls.Config {
		cfg := evil.APIServer(nil)
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &chain, nil }
		return cfg
	}
	borrowed := evil.Cert // the CA's certificate is public
	borrowed.Certificate = [][]byte{evil.Leaf().Raw, a.CA().Raw}
	for what, cfg := range map[string]*tls.Config{
		"another cluster": serve(evil.Cert), "with the cluster's CA": serve(borrowed),
		"a worker of the cluster": serve(workerOf(t, a, token)),
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				heard <- ""
				return
			}
			defer conn.Close()
			buf := make([]byte, 1<<16)
			n, _ := tls.Server(conn, cfg).Read(buf) // it ends when the machine hangs up
			heard <- string(buf[:n])
		}()
		c := testConfig(t)
		c.Node = "w"
		_, err = node.Join(t.Context(), c, l.Addr().String(), token)
		l.Close()
		if got := <-heard; got != "" {
			t.Errorf("%s: it heard %q", what, got)
		}
		var refusal *api.Error
		if !errors.As(err, &refusal) || strings.Contains(err.Error(), token.Bearer()) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
}

// workerOf is the certificate of a worker, with the CA's.
func workerOf(t *testing.T, a *trust.Authority, token trust.Token) tls.Certificate {
	t.Helper()
	j, err := trust.NewJoin(t.TempDir(), token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := a.Join(j.Request())
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.Accept(answer)
	if err != nil {
		t.Fatal(err)
	}
	return id.Cert
}

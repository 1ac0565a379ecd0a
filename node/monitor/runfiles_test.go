package monitor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/master"
)

// TestRunFilesAreTheNodesOwn has a node put what runs have left: its own runs' of trials that there are, and no others.
func TestRunFilesAreTheNodesOwn(t *testing.T) {
	log := testLog(t)
	server, err := jetstream.Start(jetstream.Config{Dir: t.TempDir(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	store, err := server.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	decides := master.New(master.Config{Store: store, Logger: log, Slots: func(grid.Resources) int { return 1 }})
	axis, err := grid.ParseSet("i=0:3")
	if err != nil {
		t.Fatal(err)
	}
	space, err := grid.NewSpace([]grid.Axis{axis}, nil)
	if err != nil {
		t.Fatal(err)
	}
	task := grid.Task{Name: "t", Command: []string{"true"}, Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries()}
	record, err := decides.Submit(t.Context(), &api.Submit{Project: "p", Task: task, Space: space})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := trust.OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := authority.IssueSelf("host1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(id.Cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{Logger: log, Master: decides, Store: store})
	sweep := string(record.Sweep.ID)
	for name, c := range map[string]struct {
		sweep, index, run string
		state             *tls.ConnectionState
		want              int
	}{
		"its own":              {sweep, "2", "host1.1.1", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, 0},
		"no certificate":       {sweep, "2", "host1.1.1", &tls.ConnectionState{}, http.StatusForbidden},
		"another node's":       {sweep, "2", "host11.1.1", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusForbidden},
		"a run without a node": {sweep, "2", "host1", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusForbidden},
		"a long name":          {sweep, "2", "host1." + strings.Repeat("x", 4000), &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusForbidden},
		"no trial":             {sweep, "3", "host1.1.1", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusNotFound},
		"no sweep":             {"q-1", "0", "host1.1.1", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusNotFound},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/", strings.NewReader("content"))
		r.SetPathValue("sweep", c.sweep)
		r.SetPathValue("index", c.index)
		r.SetPathValue("run", c.run)
		r.TLS = c.state
		_, err := m.putArtifacts(r)
		var refused *api.Error
		if errors.As(err, &refused); (err == nil) != (c.want == 0) || refused != nil && refused.Status != c.want {
			t.Errorf("%s: got %v, want status %d", name, err, c.want)
		}
	}
	all, err := store.Artifacts.List(t.Context(), "")
	if err != nil || len(all) != 1 || all[0].Name != sweep+"/2/host1.1.1" {
		t.Fatalf("stored: got %+v, %v; want its own alone", all, err)
	}
	f, err := store.Artifacts.Open(t.Context(), all[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("content: got %q, %v", b, err)
	}
}

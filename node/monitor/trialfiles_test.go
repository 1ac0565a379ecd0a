package monitor

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/master"
)

// TestRunFilesAreTheNodesOwn lets a node store the files that runs have left: those of its own runs
// of existing trials are accepted, and no others.
func TestRunFilesAreTheNodesOwn(t *testing.T) {
	log := testLog(t)
	server, err := jetstream.Start(jetstream.Config{Dir: t.TempDir(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	decides := master.New(master.Config{Store: store, Logger: log, Capacity: oneSlot})
	axis, err := space.ParseSet("i=0:3")
	if err != nil {
		t.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		t.Fatal(err)
	}
	task := grid.Task{Name: "t", Command: []string{"true"}, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.DefaultRetries()}
	record, err := decides.Submit(t.Context(), &api.Submit{Project: "p", Task: task, Space: points})
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
		"its own": {sweep, "2", "host1.1.1",
			&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, 0},
		"no certificate": {sweep, "2", "host1.1.1", &tls.ConnectionState{}, http.StatusForbidden},
		"another node's": {sweep, "2", "host11.1.1",
			&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusForbidden},
		"a run without a node": {sweep, "2", "host1", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}},
			http.StatusForbidden},
		"a long name": {sweep, "2", "host1." + strings.Repeat("x", 4000),
			&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusForbidden},
		"no trial": {sweep, "3", "host1.1.1",
			&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusNotFound},
		"no sweep": {"q-1", "0", "host1.1.1",
			&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, http.StatusNotFound},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/", strings.NewReader("content"))
		r.SetPathValue("sweep", c.sweep)
		r.SetPathValue("index", c.index)
		r.SetPathValue("run", c.run)
		r.TLS = c.state
		_, err := m.handlers.files.putArtifacts(r)
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

// TestArtifactsOfManyTrials fetches the files of more trials than are looked up together, stored in
// another order and beside those of runs that do not count: each appears once.
func TestArtifactsOfManyTrials(t *testing.T) {
	b := newSweepBench(t)
	count := jetstream.ObjectPage + 50
	id := b.submit(t, "p", "x", count, count)
	packed := func(content string) io.Reader {
		var buf bytes.Buffer
		z, err := zstd.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(z)
		err = errors.Join(w.WriteHeader(&tar.Header{Name: "f", Mode: 0o600, Size: int64(len(content))}),
			second(w.Write([]byte(content))), w.Close(), z.Close())
		if err != nil {
			t.Fatal(err)
		}
		return &buf
	}
	for i := count - 1; i >= 0; i-- {
		for run, content := range map[string]string{fmt.Sprint("n1.1.", i): fmt.Sprint("of ", i),
			fmt.Sprint("n1.0.", i): "of an earlier run"} {
			if strings.HasPrefix(run, "n1.0.") && i%10 > 0 {
				continue
			}
			if err := b.store.Artifacts.Put(t.Context(), grid.TrialID{Sweep: id, Index: int64(i)}.ArtifactName(run),
				packed(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.SetPathValue("sweep", string(id))
	w := httptest.NewRecorder()
	b.handlers.files.artifacts(w, r)
	seen := map[string]string{}
	for in := tar.NewReader(w.Body); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		content, err2 := io.ReadAll(in)
		if err = errors.Join(err, err2); err != nil || seen[h.Name] != "" {
			t.Fatalf("%v, %v twice", err, h)
		}
		seen[h.Name] = string(content)
	}
	for i := range count {
		if got, want := seen[fmt.Sprint(i, "/f")], fmt.Sprint("of ", i); got != want {
			t.Errorf("trial %d: got %q, want %q", i, got, want)
		}
	}
	if len(seen) != count {
		t.Errorf("got %d files, want %d", len(seen), count)
	}
}

func second[T any](_ T, err error) error { return err }

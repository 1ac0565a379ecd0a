package docker

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// testRegistry speaks as much of the registry's protocol as a pull needs, and misbehaves on demand.
type testRegistry struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	manifests map[string][]byte // by NAME:TAG and NAME@DIGEST
	blobs     map[string][]byte
	fetched   map[string]int // requests that were answered with a blob or a manifest, by path

	user, password string        // what it wants to be shown; "" wants nothing
	status         int           // what it answers to each request for a manifest; 0 is the truth
	stall          chan struct{} // not nil: large blobs stop in their middle until it is closed
	cut            bool          // connections end in the middle of large blobs
	slow           time.Duration // the pause after each quarter of a large blob
}

func newTestRegistry(t *testing.T) *testRegistry {
	r := &testRegistry{t: t, manifests: map[string][]byte{}, blobs: map[string][]byte{}, fetched: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.set(func() {
			if r.stall != nil {
				close(r.stall)
			}
		})
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

func (r *testRegistry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// host is the registry in a reference. Engines talk plain HTTP to what is on 127.0.0.1.
func (r *testRegistry) host() string { return strings.TrimPrefix(r.URL, "http://") }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// push stores an image of one layer of so many incompressible bytes under NAME:TAG and returns its digest. A file of the layer holds
// the text.
func (r *testRegistry) push(name, tag, text string, size int) string {
	r.t.Helper()
	var raw, packed bytes.Buffer
	w := tar.NewWriter(&raw)
	noise := make([]byte, size)
	random := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32.32s", name+tag+text))))
	random.Read(noise)
	for _, f := range []struct {
		name string
		data []byte
	}{{"text", []byte(text)}, {"noise", noise}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			r.t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		r.t.Fatal(err)
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(raw.Bytes()); err != nil {
		r.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		r.t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Env": []string{"FROM_IMAGE=" + text}, "Entrypoint": []string{"/entry"}, "Cmd": []string{"/cmd"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(raw.Bytes())}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	const kind = "application/vnd.docker."
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": kind + "distribution.manifest.v2+json",
		"config": map[string]any{"mediaType": kind + "container.image.v1+json", "size": len(config), "digest": digestOf(config)},
		"layers": []any{map[string]any{"mediaType": kind + "image.rootfs.diff.tar.gzip", "size": packed.Len(), "digest": digestOf(packed.Bytes())}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	digest := digestOf(manifest)
	r.set(func() {
		r.blobs[digestOf(config)], r.blobs[digestOf(packed.Bytes())] = config, packed.Bytes()
		r.manifests[name+":"+tag], r.manifests[name+"@"+digest] = manifest, manifest
	})
	return digest
}

func (r *testRegistry) count(part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for path, times := range r.fetched {
		if strings.Contains(path, part) {
			n += times
		}
	}
	return n
}

func refuseWith(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, text)
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	user, password, status := r.user, r.password, r.status
	r.mu.Unlock()
	if u, p, _ := q.BasicAuth(); user != "" && (u != user || p != password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		refuseWith(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	name, ref, manifest := strings.Cut(path, "/manifests/")
	_, digest, blob := strings.Cut(path, "/blobs/")
	switch {
	case path == "":
		w.WriteHeader(http.StatusOK)
	case manifest && status == http.StatusTooManyRequests:
		refuseWith(w, status, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
	case manifest && status != 0:
		refuseWith(w, status, "UNKNOWN", http.StatusText(status))
	case manifest:
		r.serveManifest(w, q, name, ref)
	case blob:
		r.serveBlob(w, q, digest)
	default:
		http.NotFound(w, q)
	}
}

func (r *testRegistry) serveManifest(w http.ResponseWriter, q *http.Request, name, ref string) {
	key := name + ":" + ref
	if strings.HasPrefix(ref, "sha256:") {
		key = name + "@" + ref
	}
	r.mu.Lock()
	b := r.manifests[key]
	r.fetched[q.URL.Path]++
	r.mu.Unlock()
	if b == nil {
		refuseWith(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
	w.Header().Set("Docker-Content-Digest", digestOf(b))
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if q.Method != http.MethodHead {
		w.Write(b)
	}
}

func (r *testRegistry) serveBlob(w http.ResponseWriter, q *http.Request, digest string) {
	r.mu.Lock()
	b, stall, cut, slow := r.blobs[digest], r.stall, r.cut, r.slow
	r.fetched[q.URL.Path]++
	r.mu.Unlock()
	if b == nil {
		refuseWith(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if len(b) < 64<<10 {
		w.Write(b)
		return
	}
	for i := range 4 {
		w.Write(b[i*len(b)/4 : (i+1)*len(b)/4])
		w.(http.Flusher).Flush()
		switch {
		case i == 1 && cut:
			panic(http.ErrAbortHandler)
		case i == 1 && stall != nil:
			select {
			case <-stall:
			case <-q.Context().Done():
			}
		case slow > 0:
			select {
			case <-time.After(slow):
			case <-q.Context().Done():
			}
		}
	}
}

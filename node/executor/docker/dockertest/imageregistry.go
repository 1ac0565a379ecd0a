package dockertest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Registry is a registry of images. It implements as much of the registry protocol as a pull needs,
// and misbehaves on demand.
type Registry struct {
	*httptest.Server
	t testing.TB

	mu        sync.Mutex
	manifests map[string][]byte // by NAME:TAG and NAME@DIGEST
	blobs     map[string][]byte
	fetched   map[string]int // requests that were answered with a blob or a manifest, by path

	User, Password string        // the credentials that it requires; none if empty
	Status         int           // the status of each answer to a request for a manifest; 0 means the true one
	Stall          chan struct{} // if not nil, large blobs stop in the middle until it is closed
	Cut            bool          // connections end in the middle of large blobs
	Slow           time.Duration // the pause after each quarter of a large blob
}

// NewRegistry starts a registry that ends with the test.
func NewRegistry(t testing.TB) *Registry {
	r := &Registry{t: t, manifests: map[string][]byte{}, blobs: map[string][]byte{}, fetched: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.Set(func() {
			if r.Stall != nil {
				close(r.Stall)
			}
		})
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

// Set changes how the registry behaves.
func (r *Registry) Set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// Host returns the registry's host for a reference. Engines use plain HTTP with hosts on 127.0.0.1.
func (r *Registry) Host() string { return strings.TrimPrefix(r.URL, "http://") }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// busyboxPath is a static program that includes a shell.
const busyboxPath = "/bin/busybox"

// Content is the content of an image with one layer.
type Content struct {
	Files                map[string]string // by path, executable
	Links                map[string]string // symbolic links
	Noise                int               // incompressible bytes in addition
	Env, Entrypoint, Cmd []string
}

// Push stores an image under NAME:TAG and returns its digest.
func (r *Registry) Push(name, tag string, c Content) string {
	r.t.Helper()
	layer, packed := r.layer(name+tag, c)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Env": c.Env, "Entrypoint": c.Entrypoint, "Cmd": c.Cmd},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	const kind = "application/vnd.docker."
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": kind + "distribution.manifest.v2+json",
		"config": map[string]any{"mediaType": kind + "container.image.v1+json", "size": len(config),
			"digest": digestOf(config)},
		"layers": []any{map[string]any{"mediaType": kind + "image.rootfs.diff.tar.gzip", "size": len(packed),
			"digest": digestOf(packed)}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	digest := digestOf(manifest)
	r.Set(func() {
		r.blobs[digestOf(config)], r.blobs[digestOf(packed)] = config, packed
		r.manifests[name+":"+tag], r.manifests[name+"@"+digest] = manifest, manifest
	})
	return digest
}

// PushText stores an image of this size that can't be run. Its environment contains the text.
func (r *Registry) PushText(name, tag, text string, size int) string {
	return r.Push(name, tag, Content{
		Files: map[string]string{"text": text}, Noise: size, Env: []string{"FROM_IMAGE=" + text},
		Entrypoint: []string{"/entry"}, Cmd: []string{"/cmd"},
	})
}

// PushBusybox stores an image with a shell. Its environment contains the text.
func (r *Registry) PushBusybox(name, tag, text string) string {
	r.t.Helper()
	program, err := os.ReadFile(busyboxPath)
	if err != nil {
		r.t.Fatal(err)
	}
	links := map[string]string{}
	for _, tool := range []string{"sh", "cat", "echo", "id", "env", "ls", "sleep", "touch", "mkdir", "true",
		"printf", "test", "stat"} {
		links["bin/"+tool] = "busybox"
	}
	return r.Push(name, tag,
		Content{Files: map[string]string{"bin/busybox": string(program), "etc/text": text}, Links: links,
			Env: []string{"FROM_IMAGE=" + text, "PATH=/bin"}})
}

// layer makes a layer, and returns it raw and packed.
func (r *Registry) layer(seed string, c Content) (raw, packed []byte) {
	r.t.Helper()
	var layer, zipped bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(h tar.Header, data []byte) {
		if h.Size = int64(len(data)); w.WriteHeader(&h) != nil {
			r.t.Fatalf("%s does not fit into an archive", h.Name)
		}
		if _, err := w.Write(data); err != nil {
			r.t.Fatal(err)
		}
	}
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		add(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}, []byte(c.Files[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Links)) {
		add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: c.Links[name], Mode: 0o777}, nil)
	}
	noise := make([]byte, c.Noise)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32.32s", seed+fmt.Sprint(c.Env))))).Read(noise)
	add(tar.Header{Name: "noise", Typeflag: tar.TypeReg, Mode: 0o644}, noise)
	if err := w.Close(); err != nil {
		r.t.Fatal(err)
	}
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(layer.Bytes())
	if err = errors.Join(err, z.Close()); err != nil {
		r.t.Fatal(err)
	}
	return layer.Bytes(), zipped.Bytes()
}

// Count returns how many requests for manifests and blobs with this part in their path were
// answered.
func (r *Registry) Count(part string) int {
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

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	user, password, status := r.User, r.Password, r.Status
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

func (r *Registry) serveManifest(w http.ResponseWriter, q *http.Request, name, ref string) {
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

func (r *Registry) serveBlob(w http.ResponseWriter, q *http.Request, digest string) {
	r.mu.Lock()
	b, stall, cut, slow := r.blobs[digest], r.Stall, r.Cut, r.Slow
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

// Package page is the monitor's web page: files that browsers load, embedded as they are written.
// There is no build step: comments and indentation are left out as a file is sent, and lines keep
// their numbers. The page asks no other origin for anything.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

//go:embed index.html *.js *.css *.svg charts vendor
var files embed.FS

// Assets is the folder of the page's files in URLs. Behind it stands the digest of all of them, so
// that a browser may keep each for ever.
const Assets = "/assets/"

const (
	document = "index.html"
	// maxAge is for files under a digest.
	maxAge = "public, max-age=31536000, immutable"
)

// Page serves the page. Make one with New.
type Page struct {
	digest string
	policy string
	files  map[string]*file
}

// file is one file as it is sent.
type file struct {
	plain  []byte
	packed func() []byte // with gzip, made once
	media  string
	tag    string
}

// importMap finds the inline script of the document, which alone is allowed by its hash.
var importMap = regexp.MustCompile(`(?s)<script type="importmap">(.*?)</script>`)

// New makes the page of the embedded files.
func New() *Page {
	p := &Page{files: map[string]*file{}}
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		fmt.Fprintf(sum, "%s %d\n", name, len(b))
		sum.Write(b)
		if path.Ext(name) == ".js" && path.Dir(name) != "vendor" {
			b = strip(b)
		}
		p.files[name] = newFile(name, b)
		return err
	})
	if err != nil {
		panic(err) // they are in the program
	}
	p.digest = hex.EncodeToString(sum.Sum(nil))[:16]
	text := bytes.ReplaceAll(p.files[document].plain, []byte(Assets), []byte(Assets+p.digest+"/"))
	p.files[document] = newFile(document, text)
	inline := sha256.Sum256(importMap.FindSubmatch(text)[1])
	p.policy = "default-src 'none'; script-src 'self' 'sha256-" + base64.StdEncoding.EncodeToString(inline[:]) +
		"'; style-src 'self'; " +
		"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'; trusted-types 'none'"
	return p
}

func newFile(name string, b []byte) *file {
	sum := sha256.Sum256(b)
	return &file{plain: b, packed: sync.OnceValue(func() []byte { return pack(b) }), media: mediaOf(name),
		tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}

var (
	blockComment = regexp.MustCompile(`(?s)/\*\*.*?\*/`)
	lineStart    = regexp.MustCompile(`(?m)^[ \t]+|^[ \t]*//.*$`)
)

// strip leaves out what is for people alone: a quarter of what is sent.
func strip(script []byte) []byte {
	script = blockComment.ReplaceAllFunc(script, func(c []byte) []byte {
		return bytes.Repeat([]byte("\n"), bytes.Count(c, []byte("\n")))
	})
	// a comment stands behind the indentation that the first pass removes
	return lineStart.ReplaceAll(lineStart.ReplaceAll(script, nil), nil)
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // nothing is written but memory
	}
	return out.Bytes()
}

// mediaOf gives the media type of a file. What the machine says about extensions does not count.
func mediaOf(name string) string {
	switch path.Ext(name) {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.FormatMediaType("text/plain", map[string]string{"charset": "utf-8"})
}

// ServeAsset answers with a file. It reports whether there is one.
func (p *Page) ServeAsset(w http.ResponseWriter, r *http.Request) bool {
	digest, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, Assets), "/")
	f := p.files[name]
	if digest != p.digest || f == nil || name == document {
		return false
	}
	w.Header().Set("Cache-Control", maxAge)
	f.serve(w, r)
	return true
}

// ServeDocument answers with the document, which is the same for all places of the page.
func (p *Page) ServeDocument(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Cache-Control", "no-cache") // asked for each time: it names the digest of the rest
	p.files[document].serve(w, r)
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("ETag", f.tag)
	h.Set("Vary", "Accept-Encoding")
	for had := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(had), "W/") == f.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.packed()
	}
	h.Set("Content-Type", f.media)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone if this fails
}

package monitor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// isDigest reports whether text is a SHA-256 in hex, as bundles are named.
func isDigest(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size && strings.ToLower(text) == text
}

// fileHandlers answer calls about bundles and about the files that trials left.
type fileHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	store   *jetstream.Store
	log     *slog.Logger
}

func (h *fileHandlers) hasBundle(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	ok, err := h.store.Bundles.Has(r.Context(), digest)
	switch {
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	}
}

// putBundle stores a bundle under its digest, and stores nothing if the content has a different
// digest. A bundle that is already stored is not read again, since its name determines its content.
func (h *fileHandlers) putBundle(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		sendError(w, badRequest("a bundle is named by its SHA-256, 64 hex digits in lower case", ""))
		return
	}
	if ok, err := h.store.Bundles.Has(r.Context(), digest); err != nil {
		sendError(w, err)
		return
	} else if ok {
		w.Header().Set("Connection", "close") // the server does not wait for the content
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := h.master.FreeBundles(r.Context()); err != nil {
		h.log.Warn("unused bundles can't be removed", "err", err)
	}
	sum := sha256.New()
	body := &digestReader{r: io.TeeReader(r.Body, sum), want: digest, sum: func() string {
		return hex.EncodeToString(sum.Sum(nil))
	}}
	if err := h.store.Bundles.Put(r.Context(), digest, body); err != nil {
		if errors.Is(err, errDigest) {
			err = badRequest("the bundle was damaged on its way", "submit again")
		}
		sendError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// errDigest makes Put fail at the end of a bundle whose content does not match its name.
var errDigest = errors.New("content does not have the digest of its name")

// digestReader returns errDigest instead of io.EOF if the content has a different digest.
type digestReader struct {
	r    io.Reader
	want string
	sum  func() string
}

func (c *digestReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF && c.sum() != c.want {
		return n, errDigest
	}
	return n, err
}

// openBundle sends a bundle to a node.
func (h *fileHandlers) openBundle(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		sendError(w, &api.Error{Status: http.StatusNotFound,
			Msg: "a bundle is named by its SHA-256, 64 hex digits in lower case"})
		return
	}
	h.sendBundle(w, r, digest)
}

// openSweepBundle streams the bundle that a sweep was submitted with.
func (h *fileHandlers) openSweepBundle(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err == nil && s.Bundle == "" {
		err = &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("no files came with %s", s.ID),
			Hint: "its program reads none of its folder"}
	}
	if err != nil {
		sendError(w, err)
		return
	}
	h.sendBundle(w, r, s.Bundle)
}

func (h *fileHandlers) sendBundle(w http.ResponseWriter, r *http.Request, digest string) {
	f, err := h.store.Bundles.Open(r.Context(), digest)
	if err != nil {
		sendError(w, storeError(err))
		return
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		panic(http.ErrAbortHandler) // the client sees a cut stream
	}
}

package monitor

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// openBundle sends a bundle to a node.
func (h *fileHandlers) openBundle(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		refuse(w, &api.Error{Status: http.StatusNotFound, Msg: "a bundle is named by its SHA-256, 64 hex digits in lower case"})
		return
	}
	h.sendBundle(w, r, digest)
}

// openSweepBundle streams the bundle that a sweep was submitted with.
func (h *fileHandlers) openSweepBundle(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err == nil && s.Bundle == "" {
		err = &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("no files came with %s", s.ID), Hint: "its program reads none of its folder"}
	}
	if err != nil {
		refuse(w, err)
		return
	}
	h.sendBundle(w, r, s.Bundle)
}

func (h *fileHandlers) sendBundle(w http.ResponseWriter, r *http.Request, digest string) {
	f, err := h.store.Bundles.Open(r.Context(), digest)
	if err != nil {
		refuse(w, refusedFile(err))
		return
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		panic(http.ErrAbortHandler) // the client sees a cut stream
	}
}

// maxRun bounds the name of a run: a node, the life of its agent, and a number.
const maxRun = 256

// putArtifacts stores what a run has left. A node may store those of its own runs of trials that there are.
func (h *fileHandlers) putArtifacts(r *http.Request) (struct{}, error) {
	var none struct{}
	node, err := peer(r)
	if err != nil {
		return none, err
	}
	run := r.PathValue("run")
	index, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil || len(run) > maxRun || !strings.HasPrefix(run, string(node)+".") {
		return none, &api.Error{Status: http.StatusForbidden, Msg: "a node stores what its own runs have left"}
	}
	id := grid.TrialID{Sweep: grid.SweepID(r.PathValue("sweep")), Index: index}
	record, ok := h.master.Sweep(id.Sweep)
	if !ok || index < 0 || index >= record.Sweep.Space.Count() {
		return none, &api.Error{Status: http.StatusNotFound, Msg: "there is no trial " + id.String()}
	}
	return none, refusedFile(h.store.PutArtifactsOf(r.Context(), node, id, run, r.Body))
}

// refusedFile gives the answer that stands for an error of the store.
func refusedFile(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrFull):
		return &api.Error{Status: http.StatusInsufficientStorage, Code: api.CodeStoreFull, Msg: err.Error()}
	case errors.Is(err, jetstream.ErrTooLarge):
		return &api.Error{Status: http.StatusRequestEntityTooLarge, Code: api.CodeTooLarge, Msg: err.Error()}
	case errors.Is(err, jetstream.ErrNotFound):
		return &api.Error{Status: http.StatusNotFound, Msg: err.Error()}
	case errors.Is(err, jetstream.ErrDisk):
		return &api.Error{Status: http.StatusServiceUnavailable, Code: api.CodeStoreDisk, Msg: err.Error()}
	}
	return err
}

package monitor

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/checkpoint"
	"mlfnode/node/master"
)

// errNotNode is the response to a client without a node's certificate.
var errNotNode = &api.Error{Status: http.StatusForbidden,
	Msg: "this is for the cluster's nodes, which show their certificates"}

// peer returns the node that sent a request.
func peer(r *http.Request) (grid.NodeID, error) {
	if r.TLS == nil {
		return "", errNotNode
	}
	node, _, err := trust.PeerOf(*r.TLS)
	if err != nil {
		return "", errNotNode
	}
	return node, nil
}

// snapshotHandlers answer calls of nodes about the snapshots of trials.
type snapshotHandlers struct {
	master *master.Master
}

// leased returns the trial that a request names if the requesting node holds a lease with it: a
// node may read and write the snapshots of no other trial.
func (h *snapshotHandlers) leased(r *http.Request) (grid.TrialID, error) {
	var none grid.TrialID
	node, err := peer(r)
	if err != nil {
		return none, err
	}
	index, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil {
		return none, badRequest("a trial is named by its sweep and its index", "")
	}
	id := grid.TrialID{Sweep: grid.SweepID(r.PathValue("sweep")), Index: index}
	holds, err := h.master.HoldsTrial(r.Context(), node, id)
	if err == nil && !holds {
		err = &api.Error{Status: http.StatusForbidden, Code: api.CodeNotHeld,
			Msg: "the node does not hold " + id.String()}
	}
	return id, err
}

func (h *snapshotHandlers) offer(r *http.Request, snapshot *checkpoint.Snapshot) (api.SnapshotOffered, error) {
	var offered api.SnapshotOffered
	id, err := h.leased(r)
	if err != nil {
		return offered, err
	}
	if err := snapshot.Check(); err != nil {
		return offered, badRequest(err.Error(), "")
	}
	snapshot.Node, _ = peer(r)
	offered.Number, offered.Missing, err = h.master.Snapshots().Offer(r.Context(), id, snapshot)
	return offered, snapshotError(err)
}

func (h *snapshotHandlers) load(r *http.Request) (*checkpoint.Snapshot, error) {
	id, err := h.leased(r)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(r.PathValue("number"))
	if err != nil {
		return nil, badRequest("a snapshot is named by its number", "")
	}
	snapshot, err := h.master.Snapshots().Load(r.Context(), id, number)
	return snapshot, snapshotError(err)
}

func (h *snapshotHandlers) putFile(r *http.Request) (struct{}, error) {
	var none struct{}
	id, err := h.leased(r)
	if err != nil {
		return none, err
	}
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	have, err2 := strconv.ParseInt(r.URL.Query().Get("have"), 10, 64)
	if err != nil || err2 != nil {
		return none, badRequest("size and have are numbers of bytes", "")
	}
	missing := checkpoint.Missing{Hash: r.PathValue("hash"), Size: size, Have: have}
	return none, snapshotError(h.master.Snapshots().Put(r.Context(), id, missing, r.Body))
}

func (h *snapshotHandlers) openFile(w http.ResponseWriter, r *http.Request) {
	id, err := h.leased(r)
	if err != nil {
		sendError(w, err)
		return
	}
	f, err := h.master.Snapshots().Open(r.Context(), id, r.PathValue("hash"))
	if err != nil {
		sendError(w, snapshotError(err))
		return
	}
	defer f.Close()
	_, _ = io.Copy(w, f) // the node has gone if this fails
}

func (h *snapshotHandlers) verifyFile(r *http.Request) (struct{}, error) {
	id, err := h.leased(r)
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, snapshotError(h.master.Snapshots().Verify(r.Context(), id, r.PathValue("hash")))
}

// snapshotError returns the response for an error of package checkpoint.
func snapshotError(err error) error {
	switch {
	case errors.Is(err, checkpoint.ErrFull):
		return &api.Error{Status: http.StatusInsufficientStorage, Code: api.CodeStoreFull, Msg: err.Error()}
	case errors.Is(err, checkpoint.ErrChanged):
		return &api.Error{Status: http.StatusConflict, Code: api.CodeChanged, Msg: err.Error()}
	case errors.Is(err, checkpoint.ErrUnfit):
		return badRequest(err.Error(), "")
	case errors.Is(err, fs.ErrNotExist):
		return &api.Error{Status: http.StatusNotFound, Msg: err.Error()}
	}
	return err
}

package api

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
)

// PathSnapshots is where nodes store and load what trials have saved. Only a node that holds a
// lease with the trial may use it; the node's certificate identifies it. POST offers a snapshot,
// and GET /{number} loads one; PUT, GET and POST /files/{hash} send, fetch and check contents.
const PathSnapshots = "/snapshots/{sweep}/{index}"

// The codes of refusals of snapshots.
const (
	CodeStoreFull = "store_full" // checkpoint.ErrFull
	CodeChanged   = "changed"    // checkpoint.ErrChanged
	CodeNotHeld   = "not_held"   // checkpoint.ErrNotHeld
)

// SnapshotOffered is the answer to the offer of a snapshot: its number once it is stored, or what
// is missing.
type SnapshotOffered struct {
	Number  int                  `json:"number,omitempty"`
	Missing []checkpoint.Missing `json:"missing,omitempty"`
}

// Snapshots is the master's store of snapshots, as a node reaches it through its client.
type Snapshots struct{ client *Client }

var _ checkpoint.Remote = Snapshots{}

// Snapshots returns the master's store of snapshots. The client must present a node's certificate.
func (c *Client) Snapshots() Snapshots { return Snapshots{c} }

func snapshotPath(id grid.TrialID) string {
	return strings.NewReplacer("{sweep}", url.PathEscape(string(id.Sweep)), "{index}",
		strconv.FormatInt(id.Index, 10)).Replace(PathSnapshots)
}

// Offer implements checkpoint.Remote.
func (s Snapshots) Offer(
	ctx context.Context, id grid.TrialID, snapshot *checkpoint.Snapshot,
) (int, []checkpoint.Missing, error) {
	offered, err := post[SnapshotOffered](ctx, s.client, snapshotPath(id), snapshot)
	return offered.Number, offered.Missing, snapshotError(err)
}

// Put implements checkpoint.Remote.
func (s Snapshots) Put(ctx context.Context, id grid.TrialID, m checkpoint.Missing, r io.Reader) error {
	query := url.Values{"size": {strconv.FormatInt(m.Size, 10)}, "have": {strconv.FormatInt(m.Have, 10)}}
	resp, err := s.client.do(ctx, http.MethodPut, snapshotPath(id)+"/files/"+m.Hash, query, r)
	if err != nil {
		return snapshotError(err)
	}
	return resp.Body.Close()
}

// Load implements checkpoint.Remote.
func (s Snapshots) Load(ctx context.Context, id grid.TrialID, number int) (*checkpoint.Snapshot, error) {
	snapshot, err := get[*checkpoint.Snapshot](ctx, s.client, snapshotPath(id)+"/"+strconv.Itoa(number), nil)
	return snapshot, snapshotError(err)
}

// Open implements checkpoint.Remote.
func (s Snapshots) Open(ctx context.Context, id grid.TrialID, hash string) (io.ReadCloser, error) {
	resp, err := s.client.do(ctx, http.MethodGet, snapshotPath(id)+"/files/"+hash, nil, nil)
	if err != nil {
		return nil, snapshotError(err)
	}
	return resp.Body, nil
}

// Verify implements checkpoint.Remote.
func (s Snapshots) Verify(ctx context.Context, id grid.TrialID, hash string) error {
	resp, err := s.client.do(ctx, http.MethodPost, snapshotPath(id)+"/files/"+hash, nil, nil)
	if err != nil {
		return snapshotError(err)
	}
	return resp.Body.Close()
}

// snapshotError returns the error of package checkpoint that corresponds to an error response.
func snapshotError(err error) error {
	e, ok := err.(*Error)
	switch {
	case !ok:
		return err
	case e.Code == CodeStoreFull:
		return checkpoint.ErrFull
	case e.Code == CodeChanged:
		return checkpoint.ErrChanged
	case e.Code == CodeNotHeld:
		return checkpoint.ErrNotHeld
	case e.Status == http.StatusBadRequest:
		return fmt.Errorf("%w: %s", checkpoint.ErrUnfit, e.Msg)
	case e.Status == http.StatusNotFound:
		return fmt.Errorf("%s: %w", e.Msg, fs.ErrNotExist)
	}
	return err
}

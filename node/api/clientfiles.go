package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"mlfnode/grid"
)

// PathRunFiles is where a node puts the files that one of its runs has left.
const PathRunFiles = "/runs/{sweep}/{index}/{run}/artifacts"

// The codes of refusals of bundles and artifacts, besides CodeStoreFull.
const (
	CodeStoreDisk = "store_disk" // the store's disk can't be written now
	CodeTooLarge  = "too_large"  // for the store, even when it is empty
)

// Bundle fetches a bundle. The client must present a node's certificate.
func (c *Client) Bundle(ctx context.Context, digest string) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, PathBundles+digest, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// PutArtifacts stores the artifacts of a run. The client must present the certificate of the run's
// node.
func (c *Client) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	path := strings.NewReplacer(
		"{sweep}", url.PathEscape(string(id.Sweep)), "{index}", strconv.FormatInt(id.Index, 10), "{run}", url.PathEscape(run),
	).Replace(PathRunFiles)
	resp, err := c.do(ctx, http.MethodPut, path, nil, io.NopCloser(r))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

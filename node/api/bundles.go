package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"mlfnode/grid"
)

// The codes of refusals of bundles and artifacts, besides CodeStoreFull.
const (
	CodeStoreDisk = "store_disk" // the store's disk can't be written now
	CodeTooLarge  = "too_large"  // for the store, even when it is empty
)

// Bundles stores and loads bundles of projects' files.
type Bundles struct{ client *Client }

// Bundles returns the calls about bundles.
func (c *Client) Bundles() Bundles { return Bundles{c} }

// Has reports whether the bundle is stored.
func (b Bundles) Has(ctx context.Context, digest string) (bool, error) {
	resp, err := b.client.do(ctx, http.MethodHead, PathBundles+digest, nil, nil)
	if status := (*Error)(nil); errors.As(err, &status) && status.Status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, resp.Body.Close()
}

// Put stores a bundle; the node checks the digest. It does not close r, so that the caller can send
// it again.
func (b Bundles) Put(ctx context.Context, digest string, r io.Reader) error {
	return discard(b.client.do(ctx, http.MethodPut, PathBundles+digest, nil, io.NopCloser(r)))
}

// Get fetches a bundle. The client must present a node's certificate.
func (b Bundles) Get(ctx context.Context, digest string) (io.ReadCloser, error) {
	return body(b.client.do(ctx, http.MethodGet, PathBundles+digest, nil, nil))
}

// OfSweep streams the files that a sweep was submitted with. It needs an operator's token.
func (b Bundles) OfSweep(ctx context.Context, id grid.SweepID) (io.ReadCloser, error) {
	return body(b.client.do(ctx, http.MethodGet, sweepPath(PathBundle, id), nil, nil))
}

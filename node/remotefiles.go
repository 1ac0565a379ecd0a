package node

import (
	"context"
	"errors"
	"io"
	"net/http"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/worker"
)

// remoteFiles is the store of bundles and artifacts on the master, which a worker reaches through
// the API.
type remoteFiles struct{ client *api.Client }

var _ worker.FileStore = remoteFiles{}

// Bundle implements worker.Files.
func (f remoteFiles) Bundle(ctx context.Context, digest string) (io.ReadCloser, error) {
	r, err := f.client.Bundles().Get(ctx, digest)
	if err != nil {
		return nil, storeError(err)
	}
	return r, nil
}

// PutArtifacts implements worker.Files.
func (f remoteFiles) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	return storeError(f.client.Trials().PutArtifacts(ctx, id, run, r))
}

// storeRefusal is an error of the master's store that wraps one of the errors of package jetstream.
type storeRefusal struct {
	error
	kind error
}

func (e *storeRefusal) Unwrap() []error { return []error{e.error, e.kind} }

// storeError returns the error of the store for which an error of the API stands. A master that
// does not answer, or has a problem of its own, is unavailable for the moment.
func storeError(err error) error {
	var e *api.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, api.ErrLost):
		return &storeRefusal{err, jetstream.ErrNoMaster}
	case !errors.As(err, &e):
		return err
	case e.Code == api.CodeStoreFull:
		return &storeRefusal{err, jetstream.ErrFull}
	case e.Code == api.CodeTooLarge:
		return &storeRefusal{err, jetstream.ErrTooLarge}
	case e.Code == api.CodeStoreDisk:
		return &storeRefusal{err, jetstream.ErrDisk}
	case e.Status == http.StatusNotFound:
		return &storeRefusal{err, jetstream.ErrNotFound}
	case e.Status >= http.StatusInternalServerError:
		return &storeRefusal{err, jetstream.ErrNoMaster}
	}
	return err
}

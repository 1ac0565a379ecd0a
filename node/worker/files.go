package worker

import (
	"context"
	"io"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// Files is where bundles come from and artifacts go.
type Files interface {
	// Bundle gives the content of a bundle, or jetstream.ErrNotFound.
	Bundle(ctx context.Context, digest string) (io.ReadCloser, error)
	// PutArtifacts stores what a run of a trial has left. The same run's may be stored again.
	PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error
}

var _ Files = (*jetstream.Store)(nil)

package jetstream

import (
	"context"
	"errors"
	"testing"
)

// TestCutEndsCalls loses the connection under a call. It ends with the reason, and a later one is not touched.
func TestCutEndsCalls(t *testing.T) {
	s := &Store{remote: true, life: t.Context}
	s.session.cut()
	before, stop := s.limited(t.Context())
	defer stop()
	s.session.cut()
	<-before.Done()
	if cause := context.Cause(before); !errors.Is(cause, errCut) {
		t.Errorf("the call ended with %v, want %v", cause, errCut)
	}
	if err := s.explain(before, "store", before.Err()); !errors.Is(err, errCut) {
		t.Errorf("the caller is told %v, want %v", err, errCut)
	}
	after, stopAfter := s.limited(t.Context())
	defer stopAfter()
	if after.Err() != nil {
		t.Errorf("a call on the next connection has ended: %v", context.Cause(after))
	}
}

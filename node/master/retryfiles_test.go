package master

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestRetryWithNewFiles checks that trials that run again with newer files are leased so that no
// node can use the older ones, that the others keep theirs, and that every bundle stays until its
// last sweep goes.
func TestRetryWithNewFiles(t *testing.T) {
	c := startMaster(t, 4)
	older, newer := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	sub := api.Submit{Project: "t", Space: spaceOf(t, 3), Task: newSweep(t, "", 1).Task, Bundle: older}
	var id grid.SweepID
	for id == "" { // a master that starts removes what belongs to no sweep, and the client sends it again
		if err := c.store.Bundles.Put(t.Context(), older, strings.NewReader("old")); err != nil {
			t.Fatal(err)
		}
		r, err := c.Submit(t.Context(), &sub)
		if refusal := (*api.Error)(nil); err != nil && (!errors.As(err, &refusal) || refusal.Code != api.CodeNoBundle) {
			t.Fatal(err)
		}
		if err == nil {
			id = r.Sweep.ID
		}
	}
	c.waitForLeases(id, 3)
	for _, class := range []grid.Class{grid.ClassExit, grid.ClassNone, grid.ClassExit} {
		h := c.workers.takeLease(id)
		if h.Updates != 0 {
			t.Errorf("a lease of the submission: got %d updates, want none", h.Updates)
		}
		c.workers.finishLease(h, class, time.Second)
	}
	c.waitUntilRecordFinished(id)
	q := api.Retry{Index: -1, FailedOnly: true, Bundle: newer}
	_, _, err := c.Retry(t.Context(), id, q)
	if refusal := (*api.Error)(nil); !errors.As(err, &refusal) || refusal.Code != api.CodeNoBundle {
		t.Fatalf("without the bundle: got %v, want the code %s", err, api.CodeNoBundle)
	}
	if r, _ := c.Sweep(id); r.Sweep.State != grid.SweepFinished || len(r.Sweep.Updates) > 0 {
		t.Fatalf("a refused retry left %s with %d updates", r.Sweep.State, len(r.Sweep.Updates))
	}
	for reopened := int64(0); reopened == 0; {
		if err := c.store.Bundles.Put(t.Context(), newer, strings.NewReader("new")); err != nil {
			t.Fatal(err)
		}
		_, n, err := c.Retry(t.Context(), id, q)
		if refusal := (*api.Error)(nil); errors.As(err, &refusal) && refusal.Code == api.CodeNoBundle {
			continue
		}
		if reopened = n; err != nil || n != 2 {
			t.Fatalf("retry: got %d, %v; want 2", n, err)
		}
	}
	r, _ := c.Sweep(id)
	if a, b, d := r.Sweep.BundleOf(0), r.Sweep.BundleOf(1), r.Sweep.BundleOf(2); a != newer ||
		b != older || d != newer {
		t.Errorf("bundles: got %s, %s, %s", a, b, d)
	}
	c.waitForLeases(id, 2)
	for range 2 {
		h := c.workers.takeLease(id)
		if h.Updates != 1 {
			t.Errorf("a lease of an updated trial: got %d updates, want 1", h.Updates)
		}
		c.workers.finishLease(h, grid.ClassNone, time.Second)
	}
	c.waitUntilRecordFinished(id)

	if err := c.removeBundles(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{older, newer} {
		if has, err := c.store.Bundles.Has(t.Context(), digest); err != nil || !has {
			t.Errorf("bundle %.4s that the sweep needs: got %v, %v, want it kept", digest, has, err)
		}
	}
	user := c.submit(1, func(s *api.Submit) { s.Bundle = newer })
	r, _ = c.Sweep(id)
	if err := c.remove(t.Context(), r.Sweep); err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]bool{older: false, newer: true} {
		if has, err := c.store.Bundles.Has(t.Context(), digest); err != nil || has != want {
			t.Errorf("bundle %.4s beside %s: got %v, %v, want %v", digest, user, has, err, want)
		}
	}
}

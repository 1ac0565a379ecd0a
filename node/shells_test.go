package node

import (
	"log/slog"
	"slices"
	"testing"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// TestFoundingAClusterRemovesShellEnvironments makes a machine that has run sweeps alone the master
// of a cluster: no worker may read what was in the environment of the shell that submitted them.
func TestFoundingAClusterRemovesShellEnvironments(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := jetstream.Start(jetstream.Config{Dir: t.TempDir(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	for _, s := range []*grid.Sweep{
		{ID: "running-1", State: grid.SweepRunning, Environ: []string{"SECRET=hunter2"},
			EnvironAdded: []string{"ADDED=1"}},
		{ID: "ended-1", State: grid.SweepFinished, Environ: []string{"SECRET=hunter2"}},
		{ID: "other-1", State: grid.SweepFinished},
	} {
		if _, err := store.Records.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	kept := storage{store: store}
	for range 2 {
		if err := kept.removeEnvironments(t.Context(), log); err != nil {
			t.Fatal(err)
		}
	}
	all, err := store.Records.All(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("got %d records, %v", len(all), err)
	}
	for _, r := range all {
		if len(r.Sweep.Environ) > 0 {
			t.Errorf("%s still has %q", r.Sweep.ID, r.Sweep.Environ)
		}
		if added := r.Sweep.ID == "running-1"; added != slices.Equal(r.Sweep.EnvironAdded, []string{"ADDED=1"}) {
			t.Errorf("%s has %q, which the user has added", r.Sweep.ID, r.Sweep.EnvironAdded)
		}
	}
}

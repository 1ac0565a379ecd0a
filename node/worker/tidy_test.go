package worker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/node/durable"

	"github.com/google/go-cmp/cmp"
)

func TestTidy(t *testing.T) {
	now := time.Now()
	old := now.Add(-keepUnused - time.Hour)
	for _, tt := range []struct {
		name, boot string
		want       []string
	}{
		{"same boot", "b1", []string{"bundles/new", "cache", "setups/new", "setups/new.log", "setups/new.ok"}},
		{"another boot", "b2", []string{"cache", "setups/new", "setups/new.log", "setups/new.ok"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tidy(dir, "b1", now); err != nil {
				t.Fatalf("on an empty folder: %v", err)
			}
			make := func(name string, used time.Time) {
				path := filepath.Join(dir, name)
				err := os.MkdirAll(filepath.Dir(path), 0o755)
				if ext := filepath.Ext(name); err == nil && ext != "" {
					err = os.WriteFile(path, nil, 0o600)
				} else if err == nil {
					err = os.MkdirAll(path, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, used, used); err != nil {
					t.Fatal(err)
				}
			}
			make("cache", old)
			for _, name := range []string{"bundles/", "setups/"} {
				make(name+"old", old)
				make(name+"new", now)
			}
			make("setups/old.ok", old)
			make("setups/old.log", now)
			make("setups/new.ok", now)
			make("setups/new.log", old)
			make("setups/torn", old) // the step failed, so there is no mark
			if err := tidy(dir, tt.boot, now); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, pattern := range []string{"bundles/*", "cache", "setups/*"} {
				found, err := filepath.Glob(filepath.Join(dir, pattern))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range found {
					rel, err := filepath.Rel(dir, path)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, rel)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("what is left (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTidyLeavesOthersFiles holds that what the node writes at the same time, as where its cluster is, is none of the worker's
// business.
func TestTidyLeavesOthersFiles(t *testing.T) {
	dir := t.TempDir()
	part := filepath.Join(dir, durable.PartPrefix+"cluster.json-1")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tidy(dir, "b1", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(part); err != nil {
		t.Errorf("got %v for a file that the node writes, want it left alone", err)
	}
}

package jetstream

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fillStore creates a store with n batches of events and one record.
func fillStore(t *testing.T, dir string, n int) {
	t.Helper()
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range n {
		if _, err := s.Events.Publish(t.Context(), batch("a-1", i, 20)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedFolders truncates or garbles each file of a store in turn: the store must open with
// what is left, or report what is wrong.
func TestDamagedFolders(t *testing.T) {
	t.Parallel()
	origin := filepath.Join(t.TempDir(), "store")
	fillStore(t, origin, 10)
	var files []string
	err := filepath.WalkDir(origin, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.Contains(path, eventStream) || strings.Contains(path, recordStream)) {
			rel, _ := filepath.Rel(origin, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil || len(files) < 6 {
		t.Fatalf("got files %v, %v", files, err)
	}
	for _, file := range files {
		for name, damage := range map[string]func([]byte) []byte{
			"half":  func(b []byte) []byte { return b[:len(b)/2] },
			"empty": func([]byte) []byte { return nil },
			"noise": func(b []byte) []byte {
				for i := len(b) / 3; i < len(b); i += 5 {
					b[i] ^= 0x5a
				}
				return b
			},
		} {
			t.Run(filepath.Base(filepath.Dir(filepath.Dir(file)))+"/"+filepath.Base(file)+"/"+name, func(t *testing.T) {
				openDamaged(t, origin, file, damage)
			})
		}
	}
}

func openDamaged(t *testing.T, origin, file string, damage func([]byte) []byte) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), damage(b), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Logf("refused: %v", err)
		return
	}
	defer server.Close()
	s, err := server.OpenStore(t.Context())
	if err != nil {
		t.Logf("refused: %v", err)
		return
	}
	defer s.Close()
	_, last, err := s.Events.Bounds(t.Context())
	if err != nil {
		t.Fatalf("bounds: %v", err)
	}
	have := map[string]bool{}
	storedEvents(t, s, have)
	records, err := s.Records.All(t.Context())
	t.Logf("recovered %d of 10 batches (last %d), %d of 1 records, %v", len(have), last, len(records), err)
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 100, 1)); err != nil {
		t.Errorf("publish: %v", err)
	}
}

// TestHalfMadeStreams opens folders in the state in which a kill leaves them while a stream is
// created or its settings change.
func TestHalfMadeStreams(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(t *testing.T, events string) (left int){
		"no settings": func(t *testing.T, events string) int {
			for _, file := range []string{"meta.inf", "meta.sum", "msgs/1.blk"} {
				remove(t, filepath.Join(events, file))
			}
			return 0
		},
		"no checksum": func(t *testing.T, events string) int {
			remove(t, filepath.Join(events, "meta.sum"))
			return 3
		},
		"checksum of the settings before": func(t *testing.T, events string) int {
			if err := os.WriteFile(filepath.Join(events, "meta.sum"), []byte("0123456789abcdef"), 0o600); err != nil {
				t.Fatal(err)
			}
			return 3
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fillStore(t, dir, 3)
			want := kill(t, filepath.Join(dir, "jetstream", "$G", "streams", eventStream))
			have := map[string]bool{}
			s := open(t, dir, Limits{})
			storedEvents(t, s, have)
			if len(have) != want {
				t.Errorf("got %d batches %v, want %d", len(have), have, want)
			}
			if _, err := s.Events.Publish(t.Context(), batch("a-1", 100, 1)); err != nil {
				t.Errorf("publish: %v", err)
			}
		})
	}
}

// TestLostLeases opens a folder after a power cut has emptied files of the lease queue: the queue
// starts empty, and the rest is there.
func TestLostLeases(t *testing.T) {
	t.Parallel()
	for _, lost := range [][]string{{"meta.inf"}, {"meta.sum"}, {"meta.inf", "meta.sum", "msgs/1.blk"}} {
		t.Run(strings.Join(lost, " "), func(t *testing.T) {
			dir := t.TempDir()
			fillStore(t, dir, 3)
			for _, file := range lost {
				path := filepath.Join(dir, "jetstream", "$G", "streams", leaseStream, file)
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, dir, Limits{})
			if _, err := s.Queue.Publish(t.Context(), Lease{Sweep: "a-1", Hi: 1, Attempt: 1, Shape: "x"}); err != nil {
				t.Errorf("lease: %v", err)
			}
			have := map[string]bool{}
			if storedEvents(t, s, have); len(have) != 3 {
				t.Errorf("got %d batches, want 3", len(have))
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

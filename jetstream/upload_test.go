package jetstream

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
)

// TestConcurrentUploads completes concurrent uploads of one object in each order: the object can be
// read afterwards.
func TestConcurrentUploads(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("x", 2*splitBytes+7)
	for _, c := range []struct {
		name  string
		there bool
		order []int
	}{
		{"first comes first", false, []int{0, 1, 2}}, {"last comes first", false, []int{2, 1, 0}},
		{"beside a stored one", true, []int{1, 0, 2}}, {"beside a stored one, backwards", true, []int{2, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir(), Limits{})
			if c.there {
				if err := s.Bundles.Put(t.Context(), "d", strings.NewReader(content)); err != nil {
					t.Fatal(err)
				}
			}
			var readers []*pausingReader
			var done []chan error
			for range c.order {
				r := &pausingReader{rest: strings.NewReader(content), at: make(chan struct{}),
					gate: make(chan struct{})}
				ended := make(chan error, 1)
				go func() { ended <- s.Bundles.Put(context.Background(), "d", r) }()
				<-r.at // its first chunks are stored
				readers, done = append(readers, r), append(done, ended)
			}
			for _, i := range c.order {
				close(readers[i].gate)
				if err := <-done[i]; err != nil {
					t.Fatal(err)
				}
				checkContent(t, s, "d", content)
			}
			info, err := s.streamInfo(t.Context(), bundleBucket)
			if err != nil || info.State.Msgs != 4 {
				t.Errorf("messages in the bucket: got %d, %v; want three chunks and a description",
					info.State.Msgs, err)
			}
		})
	}
}

// TestDeleteDuringUpload removes an object while it is being uploaded again: the new upload is
// there in the end.
func TestDeleteDuringUpload(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	content := strings.Repeat("y", 2*splitBytes)
	if err := s.Bundles.Put(t.Context(), "d", strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	r := &pausingReader{rest: strings.NewReader(content), at: make(chan struct{}), gate: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- s.Bundles.Put(context.Background(), "d", r) }()
	<-r.at
	if err := s.Bundles.Delete(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	close(r.gate)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	checkContent(t, s, "d", content)
}

func checkContent(t *testing.T, s *Store, name, want string) {
	t.Helper()
	r, err := s.Bundles.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != want {
		t.Errorf("got %d bytes, %v; want the %d that were stored", len(got), err, len(want))
	}
}

// pausingReader returns a chunk and a half, and the rest once the gate is open.
type pausingReader struct {
	rest     io.Reader
	given    int
	once     sync.Once
	at, gate chan struct{}
}

func (h *pausingReader) Read(p []byte) (int, error) {
	if h.given >= splitBytes+splitBytes/2 {
		h.once.Do(func() { close(h.at) })
		<-h.gate
	}
	n, err := h.rest.Read(p[:min(len(p), splitBytes/4)])
	h.given += n
	return n, err
}

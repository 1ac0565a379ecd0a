package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestObjects(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for _, size := range []int{0, 10, splitBytes - 1, splitBytes, splitBytes + 1, 3*splitBytes + 7} {
		content := bytes.Repeat([]byte("0123456789abcdef~"), size/17+1)[:size]
		name := fmt.Sprintf("chainer-3/%d/run", size)
		if err := s.Artifacts.Put(ctx, name, bytes.NewReader(content)); err != nil {
			t.Fatalf("put %d bytes: %v", size, err)
		}
		r, err := s.Artifacts.Open(ctx, name)
		if err != nil {
			t.Fatalf("open %d bytes: %v", size, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: got %d back, %v", size, len(got), err)
		}
		r.Close()
	}
	if _, err := s.Artifacts.Open(ctx, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("open of nothing: got %v, want ErrNotFound", err)
	}
	list, err := s.Artifacts.List(ctx, "chainer-3/10/")
	if err != nil || len(list) != 1 || list[0].Name != "chainer-3/10/run" || list[0].Size != 10 {
		t.Errorf("list of a prefix: got %+v, %v", list, err)
	}
	if list, _ = s.Artifacts.List(ctx, ""); len(list) != 6 {
		t.Errorf("list: got %d, want 6", len(list))
	}
	if err := s.Artifacts.Delete(ctx, "chainer-3/10/run"); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Artifacts.Has(ctx, "chainer-3/10/run"); ok || err != nil {
		t.Errorf("has after delete: got %v, %v; want false", ok, err)
	}
	if err := s.Artifacts.DeleteAll(ctx, "chainer-3/"); err != nil {
		t.Fatal(err)
	}
	info, err := s.streamInfo(ctx, artifactBucket)
	if err != nil || info.State.Msgs != 0 {
		t.Errorf("after delete: got %d messages, %v; want none", info.State.Msgs, err)
	}
}

// TestObjectsArePaged lists more objects than a page describes, between those with other prefixes:
// each is listed once, and no page exceeds its size.
func TestObjectsArePaged(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx, want := t.Context(), ObjectPage+ObjectPage/2
	for i := range want {
		for _, prefix := range []string{"a-1", "b-1"}[:1+i%2] {
			if err := s.Artifacts.Put(ctx, fmt.Sprintf("%s/%d/n.1.%d", prefix, i, i),
				strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	seen, pages := map[string]int{}, 0
	for place := uint64(0); pages == 0 || place > 0; pages++ {
		var page []ObjectInfo
		var err error
		if page, place, err = s.Artifacts.Page(ctx, "a-1/", place); err != nil || len(page) > ObjectPage {
			t.Fatalf("got a page of %d, %v", len(page), err)
		}
		for _, o := range page {
			seen[o.Name]++
		}
	}
	all, err := s.Artifacts.List(ctx, "a-1/")
	if err != nil || len(all) != want || len(seen) != want || pages != 2 {
		t.Errorf("got %d objects in %d pages, and %d in a list, %v; want %d in two pages", len(seen), pages,
			len(all), err, want)
	}
	for _, o := range all {
		if seen[o.Name] != 1 {
			t.Errorf("%s came %d times", o.Name, seen[o.Name])
		}
	}
	if page, place, err := s.Artifacts.Page(ctx, "none/", 0); err != nil || len(page) != 0 || place != 0 {
		t.Errorf("of nothing: got %v, %d, %v", page, place, err)
	}
}

func TestReplacedObjectLeavesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for i := range 3 {
		if err := s.Bundles.Put(ctx, "x", bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 2*splitBytes))); err != nil {
			t.Fatal(err)
		}
	}
	info, err := s.streamInfo(ctx, bundleBucket)
	if err != nil || info.State.Msgs != 3 {
		t.Errorf("got %d messages, %v; want 2 chunks and 1 description", info.State.Msgs, err)
	}
}

// failingReader returns some content and then an error.
type failingReader struct{ left int }

var errContent = errors.New("content ended early")

func (f *failingReader) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errContent
	}
	n := min(len(p), f.left)
	f.left -= n
	return n, nil
}

func TestFailedPutLeavesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{BundleBytes: 2 << 20})
	ctx := t.Context()
	if err := s.Bundles.Put(ctx, "x", &failingReader{left: splitBytes + 5}); !errors.Is(err, errContent) {
		t.Errorf("put: got %v, want the reader's error", err)
	}
	if err := s.Bundles.Put(ctx, "x", bytes.NewReader(make([]byte, 4<<20))); !errors.Is(err, ErrFull) {
		t.Errorf("put over the limit: got %v, want ErrFull", err)
	}
	info, err := s.streamInfo(ctx, bundleBucket)
	if err != nil || info.State.Msgs != 0 {
		t.Errorf("got %d messages, %v; want none", info.State.Msgs, err)
	}
}

func TestDamagedObjectIsNoticed(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	if err := s.Bundles.Put(ctx, "x", bytes.NewReader(make([]byte, 3*splitBytes))); err != nil {
		t.Fatal(err)
	}
	if err := s.streams[bundleBucket].DeleteMsg(ctx, 2); err != nil {
		t.Fatal(err)
	}
	r, err := s.Bundles.Open(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, errDigest) {
		t.Errorf("read: got %v, want %v", err, errDigest)
	}
}

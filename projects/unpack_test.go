package projects

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// compressed returns the bytes compressed like a bundle.
func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	check(t, err)
	return z.EncodeAll(data, nil)
}

// archive makes a bundle from hand-made headers. Regular files get as many bytes as their size
// says, unless that is absurd.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range headers {
		h := &headers[i]
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		check(t, w.WriteHeader(h))
		if h.Size > 1<<20 {
			return compressed(t, b.Bytes())
		}
		_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		check(t, err)
	}
	check(t, w.Close())
	return compressed(t, b.Bytes())
}

func reg(name string) tar.Header  { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1} }
func fold(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
func sym(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

// hostile returns bundles that would do harm, each with the message that refuses it.
func hostile(t *testing.T) map[string]struct {
	bundle []byte
	want   string
} {
	type refusal = struct {
		bundle []byte
		want   string
	}
	typed := func(flag byte) []byte {
		return archive(t, tar.Header{Typeflag: flag, Name: "odd", Linkname: "a", Devmajor: 1, Devminor: 3})
	}
	const oddKind = `the bundle's entry "odd" is not a file, folder or link`
	return map[string]refusal{
		"absolute path": {archive(t, reg("/tmp/mlf-evil")),
			`the bundle has a name that leaves its folder: "/tmp/mlf-evil"`},
		"parent": {archive(t, reg("../evil")), `the bundle has a name that leaves its folder: "../evil"`},
		"parent inside": {archive(t, fold("a/"), reg("a/../../evil")),
			`the bundle has a name that leaves its folder: "a/../../evil"`},
		"harmless parent": {archive(t, reg("a/../b")), `the bundle has a name that leaves its folder: "a/../b"`},
		"parent folder":   {archive(t, fold("../")), `the bundle has a name that leaves its folder: "../"`},
		"backslash":       {archive(t, reg(`..\evil`)), `the bundle has a name that leaves its folder: "..\\evil"`},
		"absolute link":   {archive(t, sym("l", "/etc")), `the bundle's link "l" leaves its folder: "/etc"`},
		"link up":         {archive(t, sym("l", "..")), `the bundle's link "l" leaves its folder: ".."`},
		"link up behind name": {archive(t, fold("a/"), sym("a/b", "../..")),
			`the bundle's link "a/b" leaves its folder: "../.."`},
		"link through link": {archive(t, fold("a/"), sym("a/b", ".."), sym("l", "a/b/../evil")),
			`the bundle's link "l" leaves its folder: "a/b/../evil"`},
		"write through link": {archive(t, fold("real/"), sym("l", "real"), reg("l/file")),
			`the bundle's entry "l/file" is not in any of its folders`},
		"folder behind link": {archive(t, fold("real/"), sym("l", "real"), fold("l/sub/")),
			`the bundle's entry "l/sub/" is not in any of its folders`},
		"link behind link": {archive(t, fold("a/"), fold("a/b/"), sym("l", "a/b"), sym("l/up", "../x")),
			`the bundle's entry "l/up" is not in any of its folders`},
		"write over link": {archive(t, sym("l", "../evil"), reg("l")),
			`the bundle's link "l" leaves its folder: "../evil"`},
		"same name":         {archive(t, reg("a"), reg("a")), `the bundle has the name "a" twice`},
		"link, then file":   {archive(t, sym("l", "a"), reg("l")), `the bundle has the name "l" twice`},
		"folder, then file": {archive(t, fold("a/"), reg("a")), `the bundle has the name "a" twice`},
		"file as folder": {archive(t, reg("a"), reg("a/b")),
			`the bundle's entry "a/b" is not in any of its folders`},
		"folder not named":  {archive(t, reg("a/b")), `the bundle's entry "a/b" is not in any of its folders`},
		"the folder itself": {archive(t, fold("./")), `the bundle has a name that leaves its folder: "./"`},
		"no name":           {archive(t, fold("/")), `the bundle has a name that leaves its folder: "/"`},
		"long name": {archive(t, reg(strings.Repeat("a/", 2048)+"x")),
			`the bundle has a name of 4097 bytes: "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/"…`},
		"hard link": {typed(tar.TypeLink), oddKind},
		"device":    {typed(tar.TypeChar), oddKind},
		"disk":      {typed(tar.TypeBlock), oddKind},
		"pipe":      {typed(tar.TypeFifo), oddKind},
		"absurd size": {archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: 1 << 50}),
			`unpack big: the bundle is larger than 4294967296 bytes`},
		// A frame header that asks for a window of 2 TiB (RFC 8878, 3.1.1.1.2).
		"absurd window": {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3, 0x01, 0x00, 0x00},
			`read bundle: window size exceeded`},
		"no bundle": {[]byte("PK\x03\x04 this is another format"),
			`read bundle: invalid input: magic number mismatch`},
		"no tar": {compressed(t, bytes.Repeat([]byte("x"), 1024)),
			`read bundle: archive/tar: invalid tar header`},
		"torn": {archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: 2 << 20}),
			`unpack big: unexpected EOF`},
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, c := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			around := t.TempDir()
			dir := filepath.Join(around, "in", "here")
			check(t, os.MkdirAll(dir, 0o700))
			wantError(t, unpack(c.bundle, dir), c.want)
			for found := range readTree(t, around) {
				if found != "in" && found != "in/here" && !strings.HasPrefix(found, "in/here/") {
					t.Errorf("%s was left outside", found)
				}
			}
			if _, err := os.Lstat("/tmp/mlf-evil"); err == nil {
				t.Error("/tmp/mlf-evil was written")
			}
		})
	}
}

func TestUnpackBoundsSum(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	check(t, err)
	defer root.Close()
	u := &unpacker{root: root, left: 10, seen: map[string]byte{}, sum: sha256.New()}
	entry := func(name, text string) error {
		return u.entry(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text))}, strings.NewReader(text))
	}
	check(t, entry("a", "123456"))
	check(t, entry("b", "7890"))
	check(t, entry("empty", ""))
	wantError(t, entry("c", "1"), "unpack c: the bundle is larger than 4294967296 bytes")
}

func TestUnpackBoundsEntries(t *testing.T) {
	u := &unpacker{seen: map[string]byte{}, left: 10, sum: sha256.New()}
	for i := range maxEntries {
		u.seen[strconv.Itoa(i)] = tar.TypeReg
	}
	h := reg("one-more")
	wantError(t, u.entry(&h, strings.NewReader("x")), "the bundle has more than 100000 files")
}

// TestUnpackTruncated checks that a bundle is refused wherever it is cut, unless the missing part
// contained no file.
func TestUnpackTruncated(t *testing.T) {
	content := tree{"a": ":one", "b": "x:two", "c/d": ":three", "c": "dir", "l": "-> a"}
	bundle, _ := pack(t, content.folder(t))
	for n := 1; n < len(bundle); n++ {
		dir := t.TempDir()
		if err := unpack(bundle[:n], dir); err != nil {
			continue
		}
		if diff := cmp.Diff(content, readTree(t, dir)); diff != "" {
			t.Fatalf("%d of %d bytes were taken for whole, but gave (-want +got):\n%s", n, len(bundle), diff)
		}
	}
}

// TestPackUnpackModesAndTimes checks that a bundle keeps modes and times, to the nanosecond, and
// that it grants rights to nobody but the owner of the files.
func TestPackUnpackModesAndTimes(t *testing.T) {
	dir := tree{"plain": ":1", "secret": ":2", "tool": "x:3", "group": ":4", "locked/a": ":5", "none": ":6",
		"deep/er/b": ":7", "link": "-> plain", "empty": "dir"}.folder(t)
	for name, mode := range map[string]os.FileMode{
		"plain": 0o644, "secret": 0o600, "tool": 0o751, "group": 0o664, "locked/a": 0o444, "locked": 0o555,
		"none": 0o200, "deep": 0o700, "deep/er": 0o2775, "empty": 0o777,
	} {
		check(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	check(t, os.Chmod(filepath.Join(dir, "none"), 0o400))
	aged(t, dir, time.Date(2001, 2, 3, 4, 5, 6, 987654321, time.UTC))
	bundle, _ := pack(t, dir)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	out := t.TempDir()
	check(t, unpack(bundle, out))
	t.Cleanup(func() { check(t, RemoveTree(out)); check(t, RemoveTree(dir)) })
	for name := range readTree(t, dir) {
		was, err := os.Lstat(filepath.Join(dir, name))
		check(t, err)
		is, err := os.Lstat(filepath.Join(out, name))
		check(t, err)
		if was.Mode().Perm() != is.Mode().Perm() || was.Mode().Type() != is.Mode().Type() ||
			!was.ModTime().Equal(is.ModTime()) {
			t.Errorf("%s: got %v %v, want %v %v", name, is.Mode(), is.ModTime(), was.Mode(), was.ModTime())
		}
	}
}

func TestUnpackDropsSpecialBits(t *testing.T) {
	dir := t.TempDir()
	check(t, unpack(archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "program", Mode: 0o6777, Size: 1}), dir))
	info, err := os.Stat(filepath.Join(dir, "program"))
	check(t, err)
	if got := info.Mode(); got != 0o777 {
		t.Errorf("got mode %v, want 0777", got)
	}
}

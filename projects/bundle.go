package projects

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

const (
	// DefaultBundleLimit bounds a project's files, before compression.
	DefaultBundleLimit = 512 << 20
	// maxEntries bounds the files and folders of a bundle.
	maxEntries = 100_000
)

// item is one file, folder or link of a project.
type item struct {
	name string // relative, with slashes
	info fs.FileInfo
	link string
}

// Pack writes the project's files to w as a bundle: a tar, compressed with zstd, that is the same for the same content on
// every machine (sorted names, no times, no owners, modes 0644 and 0755). The digest is the SHA-256 of the packed bytes, in
// hex. Left out are .git, __pycache__, *.pyc, the folders except, and what .mlfignore names, or .gitignore where there is no
// .mlfignore.
func Pack(dir string, w io.Writer, limit int64, except ...string) (digest string, err error) {
	if real, err := filepath.EvalSymlinks(dir); err == nil { // a walk does not follow a link, not even its root
		dir = real
	}
	items, err := collect(dir, except)
	if err != nil {
		return "", err
	}
	if err := checkSize(items, limit); err != nil {
		return "", err
	}
	sum := sha256.New()
	// One goroutine: the output must not depend on how many there are.
	z, err := zstd.NewWriter(io.MultiWriter(w, sum), zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return "", fmt.Errorf("start compression: %w", err)
	}
	t := tar.NewWriter(z)
	for i := range items {
		if err := packItem(t, dir, &items[i]); err != nil {
			z.Close()
			return "", err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return "", fmt.Errorf("write bundle: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// collect lists what belongs into the bundle, in order of names.
func collect(dir string, except []string) ([]item, error) {
	ignored, err := ignoreRules(dir)
	if err != nil {
		return nil, err
	}
	without := func(path string) bool {
		return slices.ContainsFunc(except, func(folder string) bool { return sameFolder(path, folder) })
	}
	var items []item
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s can't be read: %w", path, bare(err))
		}
		if path == dir {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if ignored(name, d.IsDir()) || d.IsDir() && without(path) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		it, err := examine(dir, name, d)
		if err != nil {
			return err
		}
		if len(items) >= maxEntries {
			return fmt.Errorf("the project %s has more than %d files; name what is not needed in %s", dir, maxEntries, ignoreFile)
		}
		items = append(items, it)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	return items, nil
}

// examine refuses what a bundle can't hold.
func examine(dir, name string, d fs.DirEntry) (item, error) {
	it := item{name: name}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsRune(name, '\\') {
		return it, fmt.Errorf("the file name %q has characters that not every machine can hold; rename it, or name it in %s", name, ignoreFile)
	}
	info, err := d.Info()
	if err != nil {
		return it, fmt.Errorf("%s can't be read: %w", name, bare(err))
	}
	it.info = info
	switch {
	case info.IsDir(), info.Mode().IsRegular():
		return it, nil
	case info.Mode().Type() == fs.ModeSymlink:
		it.link, err = os.Readlink(filepath.Join(dir, name))
		if err != nil {
			return it, fmt.Errorf("%s can't be read: %w", name, bare(err))
		}
		return it, checkLink(name, it.link)
	}
	return it, fmt.Errorf("%s is no file, folder or link and can't be packed; name it in %s", name, ignoreFile)
}

func checkLink(name, link string) error {
	switch {
	case !staysInside(name, link):
		return fmt.Errorf("the link %s points to %s, outside the project; copy what it points to, or name it in %s", name, link, ignoreFile)
	case turnsBack(link):
		return fmt.Errorf("the link %s points to %s, and what '..' means there depends on the links before it; write it without, or name it in %s",
			name, link, ignoreFile)
	}
	return nil
}

// staysInside reports whether a link leads to something in the project, if it does not turn back.
func staysInside(name, link string) bool {
	if filepath.IsAbs(link) {
		return false
	}
	return filepath.IsLocal(filepath.Join(filepath.Dir(name), link))
}

// turnsBack reports whether a link goes up behind a name, as in a/../b. Where that leads can't be told from the text, because
// the name may be a link too.
func turnsBack(link string) bool {
	down := false
	for part := range strings.SplitSeq(link, "/") {
		if part == ".." && down {
			return true
		}
		down = down || part != ".." && part != "." && part != ""
	}
	return false
}

func checkSize(items []item, limit int64) error {
	var total int64
	files := slices.Clone(items)
	files = slices.DeleteFunc(files, func(it item) bool { return !it.info.Mode().IsRegular() })
	for _, it := range files {
		total += it.info.Size()
	}
	if total <= limit {
		return nil
	}
	slices.SortFunc(files, func(a, b item) int { return int(max(-1, min(1, b.info.Size()-a.info.Size()))) })
	var largest []string
	for _, it := range files[:min(3, len(files))] {
		largest = append(largest, fmt.Sprintf("%s (%s)", it.name, humanize.IBytes(uint64(it.info.Size()))))
	}
	size, most := humanize.IBytes(uint64(total)), humanize.IBytes(uint64(limit))
	if size == most {
		size, most = fmt.Sprint(total, " bytes"), fmt.Sprint(limit, " bytes")
	}
	return fmt.Errorf("the project's files are %s, the limit is %s; the largest are %s; name what trials don't need in %s",
		size, most, strings.Join(largest, ", "), ignoreFile)
}

func packItem(t *tar.Writer, dir string, it *item) error {
	h := &tar.Header{Name: it.name, Mode: 0o644, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
	switch {
	case it.info.IsDir():
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, it.name+"/", 0o755
	case it.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, it.link, 0o777
	default:
		h.Typeflag, h.Size = tar.TypeReg, it.info.Size()
		if it.info.Mode()&0o111 != 0 {
			h.Mode = 0o755
		}
	}
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", it.name, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	return packContent(t, filepath.Join(dir, it.name), it)
}

// packContent copies the file, and fails if it is not what was listed: a torn bundle must not be stored.
func packContent(t *tar.Writer, path string, it *item) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe that took the file's place must not block
	if err != nil {
		return fmt.Errorf("%s can't be read: %w", it.name, bare(err))
	}
	defer f.Close()
	changed := fmt.Errorf("%s was changed while the project was packed; run the command again", it.name)
	if info, err := f.Stat(); err != nil || !os.SameFile(info, it.info) {
		return changed
	}
	n, err := io.Copy(t, io.LimitReader(f, it.info.Size()))
	if err != nil {
		return fmt.Errorf("pack %s: %w", it.name, err)
	}
	info, err := f.Stat()
	if err != nil || n != it.info.Size() || info.Size() != n || !info.ModTime().Equal(it.info.ModTime()) {
		return changed
	}
	return nil
}

// bare leaves out the operation and the path of a file error, which the message names already.
func bare(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

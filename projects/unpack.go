package projects

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"mlfnode/grid/problem"
)

const (
	// maxUnpacked bounds the unpacked size, as a defence against a bundle that was made to fill the
	// disk.
	maxUnpacked = 4 << 30
	// maxName bounds the length of a name: no program could open a longer one (PATH_MAX).
	maxName = 4096
)

// Unpack writes the files of a bundle into dir, an empty folder, with their modes and times. It
// refuses names and links that leave dir, devices, duplicate names, and names whose folder has not
// come before. The digest covers everything but the times, so that it stays the same when a folder
// is checked out again.
func Unpack(r io.Reader, dir string) (contents string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", dir, err)
	}
	defer root.Close()
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return "", fmt.Errorf("read bundle: %w", err)
	}
	defer z.Close()
	u := &unpacker{root: root, left: maxUnpacked, seen: map[string]byte{}, sum: sha256.New()}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(u.sum.Sum(nil)), u.finish(dir)
		}
		if err != nil {
			return "", fmt.Errorf("read bundle: %w", err)
		}
		if err := u.entry(h, t); err != nil {
			return "", err
		}
	}
}

type unpacker struct {
	root *os.Root
	left int64
	seen map[string]byte // the kind of each entry
	sum  hash.Hash       // of the contents
	late []*tar.Header   // folders and links, whose modes and times are set once everything exists
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	if err := u.admit(name, h); err != nil {
		return err
	}
	u.seen[name] = h.Typeflag
	fmt.Fprintf(u.sum, "%q %c %o %q %d\n", name, h.Typeflag, h.Mode&0o777, h.Linkname, h.Size)
	err := error(nil)
	switch h.Typeflag {
	case tar.TypeDir:
		u.late = append(u.late, h)
		err = u.root.Mkdir(name, 0o700)
	case tar.TypeSymlink:
		u.late = append(u.late, h)
		err = u.root.Symlink(h.Linkname, name)
	default:
		err = u.file(name, h, r)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, problem.WithoutPath(err))
	}
	return nil
}

// admit refuses what Pack would not have written.
func (u *unpacker) admit(name string, h *tar.Header) error {
	parent := path.Dir(name)
	_, twice := u.seen[name]
	switch {
	case len(name) > maxName:
		return fmt.Errorf("the bundle has a name of %d bytes: %q…", len(name), name[:40])
	case !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || strings.ContainsRune(name, '\\'):
		return fmt.Errorf("the bundle has a name that leaves its folder: %q", h.Name)
	case twice:
		return fmt.Errorf("the bundle has the name %q twice", h.Name)
	case len(u.seen) >= maxEntries:
		return fmt.Errorf("the bundle has more than %d files", maxEntries)
	case parent != "." && u.seen[parent] != tar.TypeDir: // otherwise a link could redirect the name
		return fmt.Errorf("the bundle's entry %q is not in any of its folders", h.Name)
	case h.Typeflag == tar.TypeSymlink && (!staysInside(name, h.Linkname) || turnsBack(h.Linkname)):
		return fmt.Errorf("the bundle's link %q leaves its folder: %q", h.Name, h.Linkname)
	case h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeReg:
		return fmt.Errorf("the bundle's entry %q is not a file, folder or link", h.Name)
	}
	return nil
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) error {
	if u.left -= h.Size; u.left < 0 || h.Size < 0 {
		return fmt.Errorf("the bundle is larger than %d bytes", int64(maxUnpacked))
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(io.MultiWriter(f, u.sum), r); err == nil {
		err = errors.Join(f.Chmod(os.FileMode(h.Mode).Perm()), u.root.Chtimes(name, time.Time{}, h.ModTime))
	}
	return errors.Join(err, f.Close())
}

// finish sets the modes and times of folders, the deepest first.
func (u *unpacker) finish(dir string) error {
	for _, h := range slices.Backward(u.late) {
		name := strings.TrimSuffix(h.Name, "/")
		err := SetTime(filepath.Join(dir, name), h.ModTime)
		if h.Typeflag == tar.TypeDir {
			err = errors.Join(u.root.Chmod(name, os.FileMode(h.Mode).Perm()), err)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", name, problem.WithoutPath(err))
		}
	}
	return nil
}

// SetTime sets the modification time of a file, folder or link, with nanosecond precision. It does
// not follow a link.
func SetTime(path string, t time.Time) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(t.UnixNano())}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// RemoveTree removes a folder even if folders in it have no write permission.
func RemoveTree(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // what still can't be removed is reported below
		}
		return nil
	})
	return os.RemoveAll(dir)
}

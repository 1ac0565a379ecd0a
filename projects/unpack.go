package projects

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxUnpacked bounds what a bundle may become, against one that was made to fill the disk.
const maxUnpacked = 4 << 30

// Unpack writes the files of a bundle into dir, an empty folder. Files become read-only. Names and links that leave dir,
// devices, and names that come twice are refused.
func Unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer root.Close()
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	defer z.Close()
	u := &unpacker{root: root, left: maxUnpacked, seen: map[string]bool{}}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read bundle: %w", err)
		}
		if err := u.entry(h, t); err != nil {
			return err
		}
	}
}

type unpacker struct {
	root *os.Root
	left int64
	seen map[string]bool
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	switch {
	case !filepath.IsLocal(name) || path.Clean(name) != name || strings.ContainsRune(name, '\\'):
		return fmt.Errorf("the bundle has a name that leaves its folder: %q", h.Name)
	case u.seen[name]:
		return fmt.Errorf("the bundle has the name %q twice", h.Name)
	case len(u.seen) >= maxEntries:
		return fmt.Errorf("the bundle has more than %d files", maxEntries)
	}
	u.seen[name] = true
	switch h.Typeflag {
	case tar.TypeDir:
		return u.failed(name, u.root.MkdirAll(name, 0o755))
	case tar.TypeSymlink:
		if !staysInside(name, h.Linkname) {
			return fmt.Errorf("the bundle's link %q leaves its folder: %q", h.Name, h.Linkname)
		}
		return u.failed(name, u.parent(name, func() error { return u.root.Symlink(h.Linkname, name) }))
	case tar.TypeReg:
		return u.failed(name, u.parent(name, func() error { return u.file(name, h, r) }))
	}
	return fmt.Errorf("the bundle's entry %q is no file, folder or link", h.Name)
}

func (u *unpacker) failed(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("unpack %s: %w", name, bare(err))
}

func (u *unpacker) parent(name string, fn func() error) error {
	if dir := path.Dir(name); dir != "." {
		if err := u.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return fn()
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) error {
	if u.left -= h.Size; u.left < 0 || h.Size < 0 {
		return fmt.Errorf("the bundle is larger than %d bytes", int64(maxUnpacked))
	}
	mode := os.FileMode(0o444)
	if h.Mode&0o111 != 0 {
		mode = 0o555
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

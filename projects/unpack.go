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

const (
	// maxUnpacked bounds what a bundle may become, against one that was made to fill the disk.
	maxUnpacked = 4 << 30
	// maxName bounds a name: no program could open a longer one (PATH_MAX).
	maxName = 4096
)

// Unpack writes the files of a bundle into dir, an empty folder. Files become read-only. Names and links that leave dir,
// devices, names that come twice, and names whose folder has not come before are refused.
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
	u := &unpacker{root: root, left: maxUnpacked, seen: map[string]byte{}}
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
	seen map[string]byte // the kind of each entry
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	if err := u.admit(name, h); err != nil {
		return err
	}
	u.seen[name] = h.Typeflag
	err := error(nil)
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.root.Mkdir(name, 0o755)
	case tar.TypeSymlink:
		err = u.root.Symlink(h.Linkname, name)
	default:
		err = u.file(name, h, r)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, bare(err))
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
	case parent != "." && u.seen[parent] != tar.TypeDir: // else a link could lead the name astray
		return fmt.Errorf("the bundle's entry %q lies in none of its folders", h.Name)
	case h.Typeflag == tar.TypeSymlink && (!staysInside(name, h.Linkname) || turnsBack(h.Linkname)):
		return fmt.Errorf("the bundle's link %q leaves its folder: %q", h.Name, h.Linkname)
	case h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeReg:
		return fmt.Errorf("the bundle's entry %q is no file, folder or link", h.Name)
	}
	return nil
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

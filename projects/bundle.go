package projects

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

const (
	// DefaultBundleLimit bounds the size of a project's files, before compression.
	DefaultBundleLimit = 512 << 20
	// maxEntries bounds the number of files and folders in a bundle.
	maxEntries = 100_000
	// maxBuffered is the size up to which a file is read before its header is written, so that it
	// can be read again if it changes.
	maxBuffered = 4 << 20
	// maxReads is how often a changing file is read in the hope that two readings agree.
	maxReads = 5
)

// item is one file, folder or link of a project.
type item struct {
	name string // relative, with slashes
	info fs.FileInfo
	link string
}

// Pack writes what List finds in a folder as a bundle, without the folders named by except.
func Pack(dir string, w io.Writer, limit int64, except ...string) (digest string, err error) {
	f, err := List(dir, ListOptions{Except: except})
	if err != nil {
		return "", err
	}
	return f.Pack(w, limit)
}

// Pack writes the files to w as a bundle: a tar, compressed with zstd, that is the same on every
// machine for files with the same content, modes and times (sorted names, no owners). The digest is
// the SHA-256 of the packed bytes, in hex. A file that changes during packing is packed as it was
// at one moment, and Notes mentions it.
func (f *Files) Pack(w io.Writer, limit int64) (digest string, err error) {
	if err := f.CheckSize(limit); err != nil {
		return "", err
	}
	sum := sha256.New()
	// Use one goroutine: the output must not depend on their number.
	z, err := zstd.NewWriter(io.MultiWriter(w, sum), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return "", fmt.Errorf("start compression: %w", err)
	}
	p := &packer{files: f, tar: tar.NewWriter(z)}
	for i := range f.items {
		if err := p.item(&f.items[i]); err != nil {
			z.Close()
			return "", err
		}
	}
	if err := errors.Join(p.tar.Close(), z.Close()); err != nil {
		return "", fmt.Errorf("write bundle: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// packer writes a tar.
type packer struct {
	files  *Files
	tar    *tar.Writer
	buffer bytes.Buffer
}

func (p *packer) item(it *item) error {
	h := &tar.Header{Name: it.name, Format: tar.FormatPAX}
	switch {
	case it.info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, it.name+"/"
	case it.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, it.link
	default:
		return p.file(it)
	}
	return p.header(h, it, it.info)
}

func (p *packer) header(h *tar.Header, it *item, info fs.FileInfo) error {
	h.Mode, h.ModTime = int64(info.Mode().Perm()), info.ModTime()
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", it.name, err)
	}
	return nil
}

// file packs a regular file as it is now, whatever it was when it was listed. A file that has been
// removed or replaced by something else is left out.
func (p *packer) file(it *item) error {
	f, err := os.OpenFile(filepath.Join(p.files.dir, it.name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO),
		errors.Is(err, unix.ENOTDIR):
		p.addNote("%s was removed while the folder was packed and is left out", it.name)
		return nil
	case err != nil:
		return unreadable(it.name, true, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return unreadable(it.name, true, err)
	}
	if !info.Mode().IsRegular() {
		p.addNote("%s was replaced while the folder was packed and is left out", it.name)
		return nil
	}
	if info.Size() <= maxBuffered {
		return p.small(f, it, info)
	}
	return p.large(f, it, info)
}

func (p *packer) addNote(format string, args ...any) {
	p.files.Notes = append(p.files.Notes, fmt.Sprintf(format, args...))
}

// small reads the file until it does not change during a reading, or until two readings begin with
// the same bytes.
func (p *packer) small(f *os.File, it *item, info fs.FileInfo) error {
	last, read := []byte(nil), false
	for range maxReads {
		p.buffer.Reset()
		if _, err := io.Copy(&p.buffer, io.NewSectionReader(f, 0, info.Size())); err != nil {
			return fmt.Errorf("pack %s: %w", it.name, err)
		}
		now, err := f.Stat()
		if err != nil {
			return unreadable(it.name, true, err)
		}
		content := p.buffer.Bytes()
		still := unchanged(info, now)
		if still || read && bytes.HasPrefix(content, last) {
			if !still {
				content = last
			}
			if n := int64(len(content)); now.Size() != n {
				p.noteGrowth(it, n)
			}
			h := &tar.Header{Name: it.name, Typeflag: tar.TypeReg, Size: int64(len(content)), Format: tar.FormatPAX}
			if err := p.header(h, it, info); err != nil {
				return err
			}
			_, err := p.tar.Write(content)
			return err
		}
		last, read = bytes.Clone(content), true
		info = now
	}
	return errChanging(it)
}

// large copies the file as it is read, and reads it once more if it changed during that time.
func (p *packer) large(f *os.File, it *item, info fs.FileInfo) error {
	h := &tar.Header{Name: it.name, Typeflag: tar.TypeReg, Size: info.Size(), Format: tar.FormatPAX}
	if err := p.header(h, it, info); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(p.tar, sum), io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return fmt.Errorf("pack %s: %w", it.name, err)
	}
	now, err := f.Stat()
	if err != nil || n != info.Size() {
		return errChanging(it)
	}
	if unchanged(info, now) {
		return nil
	}
	again := sha256.New()
	m, err := io.Copy(again, io.NewSectionReader(f, 0, n))
	if err != nil || m != n || !bytes.Equal(again.Sum(nil), sum.Sum(nil)) {
		return errChanging(it)
	}
	if now.Size() != n {
		p.noteGrowth(it, n)
	}
	return nil
}

// clockTick is longer than one step of the clock that stamps files: two changes within one step
// have the same time.
const clockTick = 20 * time.Millisecond

// unchanged reports whether a file was certainly not written between two looks at it.
func unchanged(before, after fs.FileInfo) bool {
	return after.Size() == before.Size() && after.ModTime().Equal(before.ModTime()) &&
		time.Since(after.ModTime()).Abs() > clockTick
}

func (p *packer) noteGrowth(it *item, n int64) {
	p.addNote("%s was being written while the folder was packed; its first %d bytes travel", it.name, n)
}

func errChanging(it *item) error {
	return fmt.Errorf("%s keeps changing while the folder is packed; name it in %s if trials don't need it, or stop "+
		"the program that writes it",
		it.name, ignoreFile)
}

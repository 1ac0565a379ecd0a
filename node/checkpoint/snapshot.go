// Package checkpoint carries what trials have saved from node to node. A Snapshot is a list of the
// files of a trial's checkpoint folder with the hash of each; contents are stored by hash, so that
// what is stored already is not sent again.
//
//	node:    Scan ──► Send ──► Store on the master
//	node:    Restore ◄─────── Store on the master
//
// A Store keeps two generations of each trial: the newest snapshot, which may be torn, and one
// before it that was left clean.
package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// Snapshot is a state of a checkpoint folder. Unknown fields are skipped, so fields are only ever
// added.
type Snapshot struct {
	V int `json:"v"`
	// counts the snapshots of the trial from 1; never used twice; 0 before it is stored
	Number  int `json:"n"`
	Attempt int `json:"a"`           // the attempt that made it
	Resumed int `json:"p,omitempty"` // number of the snapshot from which the attempt had resumed; 0 for none
	// the folder was not being written: what the program had saved is complete, as far as can be
	// told
	Clean bool        `json:"c,omitempty"`
	Node  grid.NodeID `json:"d,omitempty"`
	Time  int64       `json:"t"` // microseconds since 1970
	Files []File      `json:"f"`
}

// File is a file, folder or symbolic link of a snapshot.
type File struct {
	Path  string      `json:"p"` // with slashes, below the folder
	Mode  fs.FileMode `json:"m"`
	MTime int64       `json:"t"`           // nanoseconds since 1970
	Size  int64       `json:"s,omitempty"` // of a regular file
	Hash  string      `json:"h,omitempty"` // SHA-256 of a regular file's content, in hex
	Link  string      `json:"l,omitempty"` // target of a link

	inode uint64
	ctime unix.Timespec
}

// Bounds of a snapshot.
const (
	version  = 1
	maxFiles = 100_000
	maxPath  = 4096
	// MaxManifest bounds a snapshot's own size as JSON.
	MaxManifest = 64 << 20
)

// Size adds up the files.
func (s *Snapshot) Size() (total int64) {
	for i := range s.Files {
		total += s.Files[i].Size
	}
	return total
}

// Check returns why a snapshot from elsewhere is not valid: what it names must stay below its
// folder.
func (s *Snapshot) Check() error {
	if s.V > version {
		return fmt.Errorf("the snapshot has version %d, which needs a newer mlfnode", s.V)
	}
	if len(s.Files) > maxFiles {
		return fmt.Errorf("the snapshot has %d files, more than %d", len(s.Files), maxFiles)
	}
	seen := make(map[string]bool, len(s.Files))
	for i := range s.Files {
		f := &s.Files[i]
		switch {
		case len(f.Path) > maxPath || !filepath.IsLocal(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "." ||
			strings.ContainsRune(f.Path, 0):
			return fmt.Errorf("the snapshot's path %.60q leaves its folder", f.Path)
		case seen[f.Path]:
			return fmt.Errorf("the snapshot has %.60q twice", f.Path)
		case f.Mode.IsRegular() && (!IsHash(f.Hash) || f.Size < 0 || f.Link != ""),
			f.Mode.IsDir() && (f.Hash != "" || f.Size != 0 || f.Link != ""),
			f.Mode.Type() == fs.ModeSymlink && (f.Hash != "" || f.Size != 0 || f.Link == "" || len(f.Link) > maxPath),
			!f.Mode.IsRegular() && !f.Mode.IsDir() && f.Mode.Type() != fs.ModeSymlink:
			return fmt.Errorf("the snapshot's entry %.60q is not valid", f.Path)
		}
		seen[f.Path] = true
	}
	return nil
}

// IsHash reports whether text is a SHA-256 in lower-case hex.
func IsHash(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size && strings.ToLower(text) == text
}

// Scan lists a folder, without the hashes. Sockets, pipes, devices and what is removed meanwhile
// are left out.
func Scan(dir string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if name != dir && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || name == dir {
			return err
		}
		var st unix.Stat_t
		switch err := unix.Lstat(name, &st); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return &fs.PathError{Op: "lstat", Path: name, Err: err}
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		f := File{
			Path: filepath.ToSlash(rel), Mode: fs.FileMode(st.Mode & 0o777), MTime: st.Mtim.Nano(), inode: st.Ino,
			ctime: st.Ctim,
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			f.Size = st.Size
		case unix.S_IFDIR:
			f.Mode |= fs.ModeDir
		case unix.S_IFLNK:
			f.Mode |= fs.ModeSymlink
			f.Link, err = os.Readlink(name)
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL): // replaced by another kind of file
				return nil
			case err != nil:
				return err
			}
			f.Link = rebaseLink(dir, rel, f.Link)
		default:
			return nil
		}
		if files = append(files, f); len(files) > maxFiles {
			return fmt.Errorf("%w: it has more than %d files", ErrUnfit, maxFiles)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the checkpoint: %w", err)
	}
	return files, nil
}

// rebaseLink makes an absolute link into the folder itself relative, since the folder has another
// path on another node.
func rebaseLink(dir, name, link string) string {
	to, err := filepath.Rel(dir, link)
	if !filepath.IsAbs(link) || err != nil || !filepath.IsLocal(to) {
		return link
	}
	if rel, err := filepath.Rel(filepath.Dir(name), to); err == nil {
		return rel
	}
	return link
}

// Same reports whether nothing has changed between two scans, as far as sizes, times and inodes
// tell. Steps of the clock do not matter: the times are only compared with each other.
func Same(a, b []File) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].same(&b[i]) {
			return false
		}
	}
	return true
}

func (f *File) same(g *File) bool {
	return f.Path == g.Path && f.Mode == g.Mode && f.MTime == g.MTime && f.Size == g.Size && f.Link == g.Link &&
		f.inode == g.inode && f.ctime == g.ctime
}

// LastChange returns when something in the folder of a scan was last written, renamed or touched.
func LastChange(files []File) (last time.Time) {
	for i := range files {
		if t := time.Unix(files[i].ctime.Unix()); t.After(last) {
			last = t
		}
	}
	return last
}

// ErrChanged says that files were written while they were read: another try may find them
// unchanged.
var ErrChanged = errors.New("the checkpoint changed while it was read")

// HashFiles fills in the hashes of a scan of dir. Those of files that have not changed since an
// earlier scan with hashes are taken from there. When it returns, everything is on the disk: after
// a power cut the folder is what the snapshot says. It returns ErrChanged when something changed
// meanwhile.
func HashFiles(ctx context.Context, dir string, files, earlier []File) error {
	known := make(map[string]*File, len(earlier))
	for i := range earlier {
		known[earlier[i].Path] = &earlier[i]
	}
	for i := range files {
		f := &files[i]
		if !f.Mode.IsRegular() {
			continue
		}
		if k := known[f.Path]; k != nil && k.same(f) && k.Hash != "" {
			f.Hash = k.Hash
			continue
		}
		hash, size, err := hashFile(ctx, filepath.Join(dir, filepath.FromSlash(f.Path)))
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && size != f.Size:
			return ErrChanged
		case err != nil:
			return fmt.Errorf("read the checkpoint: %w", err)
		}
		f.Hash = hash
	}
	if err := durable.SyncFileSystem(dir); err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	again, err := Scan(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !Same(files, again) {
		return ErrChanged
	}
	return err
}

func hashFile(ctx context.Context, name string) (hash string, size int64, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err = io.Copy(sum, &contextReader{ctx, f})
	return hex.EncodeToString(sum.Sum(nil)), size, err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

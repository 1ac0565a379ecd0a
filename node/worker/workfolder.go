package worker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/projects"
)

// folderEntry is a file, folder or link of an attempt's folder.
type folderEntry struct {
	path   string // relative
	mode   fs.FileMode
	time   time.Time // of its last change
	size   int64
	source string // file to copy
	link   string // target of a symlink
}

// isShared reports whether attempts see the file or folder in place.
func (e folderEntry) isShared() bool { return e.link != "" && e.link == e.source }

func (e *folderEntry) isSharedFolder() bool {
	if !e.isShared() {
		return false
	}
	info, err := os.Lstat(e.source)
	return err == nil && info.IsDir()
}

// expand turns a shared folder into a folder whose content is shared.
func (e *folderEntry) expand() ([]folderEntry, error) {
	info, err := os.Stat(e.source)
	if err != nil {
		return nil, fmt.Errorf("look at what is shared: %w", err)
	}
	names, err := os.ReadDir(e.source)
	if err != nil {
		return nil, fmt.Errorf("list what is shared: %w", err)
	}
	all := []folderEntry{{path: e.path, mode: info.Mode(), time: info.ModTime(), source: e.source}}
	for _, d := range names {
		from := filepath.Join(e.source, d.Name())
		all = append(all, folderEntry{
			path: filepath.Join(e.path, d.Name()), mode: fs.ModeSymlink, time: info.ModTime(), source: from, link: from,
		})
	}
	return all, nil
}

// listFolder lists what an attempt's folder gets of dir, each folder before its content. What share
// matches becomes a link to where it is, a folder as one link. Files and folders whose modes keep
// this user from reading them are a failure of the setup.
func listFolder(dir string, share *projects.Shared) ([]folderEntry, error) {
	var entries []folderEntry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path == dir {
			return err
		}
		rel, relErr := filepath.Rel(dir, path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return unreadableError(rel, err)
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrPermission) { // its folder may be listed, but not searched
			return unreadableError(rel, err)
		}
		if err != nil {
			return err
		}
		e := folderEntry{path: rel, mode: info.Mode(), time: info.ModTime(), size: info.Size(), source: path}
		switch {
		case d.Type() == fs.ModeSymlink:
			e.link, err = os.Readlink(path)
			e.link = rebaseLink(dir, rel, e.link)
		case !d.IsDir() && !d.Type().IsRegular():
			return nil // a socket or a pipe that the setup left
		case share.Has(rel, d.IsDir()):
			e.link, e.mode = path, fs.ModeSymlink
			if d.IsDir() {
				err = fs.SkipDir
			}
		case !d.IsDir() && e.mode&0o400 == 0: // root can read it nevertheless
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrPermission) {
				return unreadableError(rel, err)
			}
			if err != nil {
				return err
			}
			f.Close()
		}
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the project's files: %w", err)
	}
	return entries, nil
}

// unreadableError is the failure of a setup step that leaves something that can't be copied for
// attempts.
func unreadableError(name string, err error) error {
	return &setupError{
		class:  grid.ClassStart,
		reason: fmt.Sprintf("the setup step leaves %s, which trials can't get: %v", name, problem.WithoutPath(err)),
	}
}

// rebaseLink makes an absolute link of a setup step into its own folder lead into the folder that
// the link is copied to. Otherwise what one attempt writes through it would be seen by all others.
func rebaseLink(dir, name, link string) string {
	if !filepath.IsAbs(link) {
		return link
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	for _, root := range []string{dir, real} {
		to, err := filepath.Rel(root, filepath.Clean(link))
		if err != nil || !filepath.IsLocal(to) {
			continue
		}
		if relative, err := filepath.Rel(filepath.Dir(name), to); err == nil {
			return relative
		}
	}
	return link
}

// linkEntries lists what attempts see of the outside of the project. It must exist on this node;
// where it does not, the preparation of the sweep fails here, like a setup step: other sweeps don't
// need it.
func linkEntries(links []grid.Link) ([]folderEntry, error) {
	var entries []folderEntry
	for _, l := range links {
		info, err := os.Stat(l.To)
		if err != nil {
			return nil, &setupError{
				class: grid.ClassStart,
				reason: fmt.Sprintf("the project shares %s, which this node can't read: %v", l.To,
					problem.WithoutPath(err)),
			}
		}
		if l.Path == "" {
			continue
		}
		if !filepath.IsLocal(l.Path) {
			return nil, fmt.Errorf("the project's link %q leaves its folder", l.Path)
		}
		entries = append(entries, folderEntry{path: l.Path, mode: fs.ModeSymlink, time: info.ModTime(), link: l.To})
	}
	return entries, nil
}

// fillFolder creates the entries in dir, each as a separate copy with its mode and time.
func fillFolder(dir string, entries []folderEntry) error {
	for i := range entries {
		if err := entries[i].create(dir); err != nil {
			return err
		}
	}
	return setFolderModes(dir, entries)
}

// setFolderModes gives the folders among the entries their modes and times: filling a folder
// changes its time, and its mode may not allow it. Each folder comes before its content.
func setFolderModes(dir string, entries []folderEntry) error {
	for i := range slices.Backward(entries) {
		if e := &entries[i]; e.mode.IsDir() {
			path := filepath.Join(dir, e.path)
			if err := errors.Join(os.Chmod(path, e.mode.Perm()), projects.SetTime(path, e.time)); err != nil {
				return err
			}
		}
	}
	return nil
}

// create creates the entry in a folder; a folder's mode and time are set later.
func (e *folderEntry) create(dir string) error {
	path := filepath.Join(dir, e.path)
	switch {
	case e.mode.IsDir():
		return os.Mkdir(path, 0o700)
	case e.mode.Type() == fs.ModeSymlink:
		err := os.Symlink(e.link, path)
		if errors.Is(err, fs.ErrNotExist) { // nothing else in its folder is part of the project
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(e.link, path))
		}
		if err != nil {
			return err
		}
		return projects.SetTime(path, e.time)
	}
	return e.copyFile(path)
}

// copyFile writes a file that is independent of the original; where the file system can, they share
// blocks on the disk until one of them changes.
func (e *folderEntry) copyFile(to string) (err error) {
	in, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer in.Close()
	perm := e.mode.Perm()
	created := perm
	if perm&umask() != 0 || perm&0o200 == 0 {
		created = 0o600
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, created)
	if err != nil {
		return err
	}
	switch {
	case e.size < minCloneSize: // faster than within the kernel
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, max(512, e.size+1)))
	case !cloneBlocks(out, in):
		_, err = io.Copy(out, in) // within the kernel
	}
	if err == nil && created != perm {
		err = out.Chmod(perm)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return projects.SetTime(to, e.time)
}

// umask is the umask of this process, which nothing here changes.
var umask = sync.OnceValue(func() fs.FileMode {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if octal, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(octal), 8, 32); err == nil {
				return fs.FileMode(n)
			}
		}
	}
	return 0o777 // unknown: each mode is set explicitly
})

// minCloneSize is the size from which sharing blocks is attempted.
const minCloneSize = 64 << 10

// cloneUnsupported is set once the file system has said that files can't share blocks. All folders
// of attempts are on one.
var cloneUnsupported atomic.Bool

// cloneBlocks makes out share the blocks of in until one of them is written.
func cloneBlocks(out, in *os.File) bool {
	if cloneUnsupported.Load() {
		return false
	}
	err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EXDEV) {
		cloneUnsupported.Store(true)
	}
	return err == nil
}

// makeReadOnly removes the write permission from shared files, so that a program that tries to
// change one fails instead of changing what other trials see. (It does not stop root.)
func makeReadOnly(dir string, share *projects.Shared) error {
	entries, err := listFolder(dir, share)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.isShared() {
			continue
		}
		err := filepath.WalkDir(e.source, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Type() == fs.ModeSymlink {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			return os.Chmod(path, info.Mode().Perm()&^0o222)
		})
		if err != nil {
			return fmt.Errorf("protect what is shared: %w", err)
		}
	}
	return nil
}

const (
	// manyFiles and manyBytes are a folder whose copies take so long that its user should know.
	manyFiles = 3000
	manyBytes = 300 << 20
)

// copyAdvice returns what to say after a setup step that leaves so much that copies of it take
// long.
func copyAdvice(dir string, share []string) string {
	entries, err := listFolder(dir, projects.NewShared(share))
	if err != nil {
		return ""
	}
	files, bytes := 0, int64(0)
	for i := range entries {
		if entries[i].mode.IsRegular() {
			files++
			bytes += entries[i].size
		}
	}
	if files < manyFiles && bytes < manyBytes {
		return ""
	}
	return fmt.Sprintf("mlfnode: the setup step leaves %d files, %s, which each trial copies; name what trials "+
		"only read under share in project.yaml, and they see it in place", files, humanize.IBytes(uint64(bytes)))
}

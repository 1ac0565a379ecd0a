package provision

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/durable"
)

// receive stores the pushed files of a project.
func (o *operation) receive(context.Context) error {
	p := o.request.Push
	if p == nil || p.Project == "" || p.Project != path.Base(p.Project) || strings.HasPrefix(p.Project, ".") {
		return errors.New("the request names no project")
	}
	in := &upload{dir: filepath.Join(o.Projects(), p.Project), push: p}
	if err := in.checkNames(); err != nil {
		return err
	}
	if err := os.MkdirAll(in.dir, 0o700); err != nil {
		return fmt.Errorf("make the project's folder: %w", err)
	}
	root, err := os.OpenRoot(in.dir)
	if err != nil {
		return fmt.Errorf("open the project's folder: %w", err)
	}
	defer root.Close()
	in.root = root
	removed, err := in.removeUnlisted(pushedList(o.Layout, p.Project))
	if err != nil {
		return err
	}
	if removed > 0 {
		o.recordChange("removed %s", countFiles(removed))
	}
	if p.Tar {
		n, err := in.unpack(o.body)
		if err != nil {
			return err
		}
		if n > 0 {
			o.recordChange("pushed %s", countFiles(n))
		}
	}
	o.response.Missing = in.missing()
	return nil
}

func countFiles(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// upload is a push in progress. Its root keeps every path inside the project's folder, whatever
// links that contains.
type upload struct {
	dir  string
	root *os.Root
	push *protocol.Push
}

// checkNames refuses names and links that lead outside the project.
func (in *upload) checkNames() error {
	for name, f := range in.push.Files {
		if !isLocal(name) {
			return fmt.Errorf("the file name %q leads out of the project", name)
		}
		if f.Link != "" && (path.IsAbs(f.Link) || !isLocal(path.Join(path.Dir(name), f.Link))) {
			return fmt.Errorf("the link %q leads out of the project, to %q", name, f.Link)
		}
	}
	return nil
}

func isLocal(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && path.Clean(name) == name && name != "."
}

// pushedList is the path of the file, beside a project's folder, that lists the pushed files.
func pushedList(p protocol.Layout, project string) string {
	return filepath.Join(p.Projects(), "."+project+".pushed")
}

// readPushed returns the names in a list of pushed files, none for a damaged list.
func readPushed(list string) []string {
	var names []string
	if b, err := os.ReadFile(list); err == nil {
		_ = json.Unmarshal(b, &names)
	}
	return slices.DeleteFunc(names, func(name string) bool { return !isLocal(name) })
}

// removeUnlisted removes files of earlier pushes that this one does not list, and records the files
// that pushes have brought. A file that was already there unchanged belongs to somebody else.
func (in *upload) removeUnlisted(list string) (removed int, err error) {
	var brought []string
	for _, name := range readPushed(list) {
		if _, named := in.push.Files[name]; named {
			brought = append(brought, name)
			continue
		}
		gone, err := removePushed(in.root, name)
		if err != nil {
			return removed, fmt.Errorf("remove a file that is no longer pushed: %w", err)
		}
		if gone {
			removed++
		}
	}
	if in.push.Tar { // otherwise this request brings no files
		brought = append(brought, in.missing()...)
	}
	slices.Sort(brought)
	b, err := json.Marshal(slices.Compact(brought))
	if err == nil {
		err = durable.WriteFile(list, b, 0o600)
	}
	if err != nil {
		return removed, fmt.Errorf("list what is pushed: %w", err)
	}
	return removed, nil
}

// removePushed removes a file, and the folders that become empty.
func removePushed(root *os.Root, name string) (gone bool, err error) {
	err = root.Remove(filepath.FromSlash(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if root.Remove(filepath.FromSlash(dir)) != nil {
			break // it is not empty
		}
	}
	return err == nil, nil
}

// missing lists the files that are missing or differ.
func (in *upload) missing() []string {
	var missing []string
	for name, f := range in.push.Files {
		if !in.upToDate(filepath.FromSlash(name), f) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing
}

func (in *upload) upToDate(name string, f protocol.File) bool {
	info, err := in.root.Lstat(name)
	switch {
	case err != nil:
		return false
	case f.Link != "":
		to, err := in.root.Readlink(name)
		return err == nil && to == f.Link
	case !info.Mode().IsRegular() || (info.Mode()&0o100 != 0) != f.Exec:
		return false
	}
	file, err := in.root.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	h := sha256.New()
	_, err = io.Copy(h, file)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == f.SHA256
}

// unpack stores the files of a tar.
func (in *upload) unpack(r io.Reader) (n int, err error) {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // the padding of the last block: the sender would fail if it were not read
			return n, err
		}
		if err != nil {
			return n, fmt.Errorf("read the files that are pushed: %w", err)
		}
		f, named := in.push.Files[h.Name]
		if !named {
			return n, fmt.Errorf("the tar holds %q, which the request does not name", h.Name)
		}
		if err := in.writeFile(h.Name, f, t); err != nil {
			return n, fmt.Errorf("take over %s: %w", h.Name, err)
		}
		n++
	}
}

// writeFile writes one file under a temporary name, and renames it once it is complete.
func (in *upload) writeFile(name string, f protocol.File, r io.Reader) error {
	name = filepath.FromSlash(name)
	if err := in.root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	draft := filepath.Join(filepath.Dir(name), ".mlfnode-push")
	if err := in.root.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it is left from an interrupted push
	}
	err := in.writeDraft(draft, f, r)
	if err == nil {
		err = in.root.Rename(draft, name)
	}
	if err != nil {
		_ = in.root.Remove(draft) // the first error counts
	}
	return err
}

func (in *upload) writeDraft(draft string, f protocol.File, r io.Reader) error {
	if f.Link != "" {
		return in.root.Symlink(f.Link, draft)
	}
	mode := fs.FileMode(0o600)
	if f.Exec {
		mode = 0o700
	}
	file, err := in.root.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, h), r)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.SHA256 {
		return errors.New("it was changed in transit")
	}
	return nil
}

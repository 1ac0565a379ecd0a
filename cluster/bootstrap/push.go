package bootstrap

import (
	"archive/tar"
	"bytes"
	"context"
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

	"mlfnode/cluster/bootstrap/protocol"
)

// Files is the content of a folder that is pushed as a project.
type Files struct {
	Project string // its name on the machines
	dir     string
	files   map[string]protocol.File
}

// ReadFiles lists the files in a folder, which may not change while it is pushed.
func ReadFiles(project, dir string) (*Files, error) {
	f := &Files{Project: project, dir: dir, files: map[string]protocol.File{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var file protocol.File
		if d.Type()&fs.ModeSymlink != 0 {
			file.Link, err = os.Readlink(path)
		} else {
			file, err = describeFile(path)
		}
		f.files[filepath.ToSlash(rel)] = file
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the project %s: %w", project, err)
	}
	return f, nil
}

func describeFile(path string) (protocol.File, error) {
	content, err := os.Open(path)
	if err != nil {
		return protocol.File{}, err
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		return protocol.File{}, err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, content)
	return protocol.File{SHA256: hex.EncodeToString(sum.Sum(nil)), Exec: info.Mode()&0o100 != 0}, err
}

// push sends the machine the files that are missing there or differ.
func (f *Files) push(ctx context.Context, m *machine) (string, error) {
	o := protocol.Request{Push: &protocol.Push{Project: f.Project, Files: f.files}}
	reply, err := m.call(ctx, protocol.ActionReceive, o, nil)
	if err != nil || len(reply.Missing) == 0 {
		return changes(reply), err
	}
	slices.Sort(reply.Missing)
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, name := range reply.Missing {
		if err := f.pack(w, name); err != nil {
			return "", fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	o.Push.Tar = true
	reply, err = m.call(ctx, protocol.ActionReceive, o, &packed)
	return changes(reply), err
}

// pack writes one of the files.
func (f *Files) pack(w *tar.Writer, name string) error {
	file, ok := f.files[name]
	if !ok {
		return errors.New("there is no such file in the project")
	}
	h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}
	if file.Link != "" {
		h.Typeflag, h.Linkname = tar.TypeSymlink, file.Link
		return w.WriteHeader(h)
	}
	if file.Exec {
		h.Mode = 0o755
	}
	content, err := os.ReadFile(filepath.Join(f.dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	h.Size = int64(len(content))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

func changes(r *protocol.Response) string {
	if r == nil {
		return ""
	}
	return strings.Join(r.Done, ", ")
}

// PushAll sends the project's files to all machines. It installs the program where that is missing.
func PushAll(ctx context.Context, o Options) []Outcome {
	r := newOperation(o)
	defer r.close()
	r.forEach(r.machines, func(m *machine) { r.inspectAndPrepare(ctx, m) })
	return r.results()
}

// Close removes the folder.
func (f *Files) Close() error { return os.RemoveAll(f.dir) }

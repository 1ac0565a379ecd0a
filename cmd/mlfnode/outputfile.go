package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/grid/problem"
	"mlfnode/node/durable"
)

// outputFile writes a file that is complete or absent, or writes directly to something else:
// standard output, a pipe, a device.
type outputFile struct {
	w     io.Writer
	file  *os.File // nil for standard output
	part  bool     // file is renamed to path at the end
	path  string
	bytes int64
}

// openOutputFile opens a file for writing, or standard output for "-". It follows a link.
func openOutputFile(stdout io.Writer, path string) (*outputFile, error) {
	if path == "-" {
		return &outputFile{w: stdout}, nil
	}
	o := &outputFile{path: path}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, usage(path+" is a folder", "name a file in it")
	case err == nil && !info.Mode().IsRegular():
		o.file, err = os.OpenFile(path, os.O_WRONLY, 0)
	default:
		if at, e := filepath.EvalSymlinks(path); e == nil {
			o.path = at
		} else if _, e := os.Lstat(path); e == nil {
			return nil, usage(path+" is a link to a file that does not exist", "name that file")
		}
		o.part = true
		o.file, err = createPart(o.path)
	}
	if err != nil {
		return nil, o.writeError(err)
	}
	o.w = o.file
	return o, nil
}

// createPart creates the file that will replace the one at path, and removes those that killed
// processes have left. A part is locked as long as its process lives.
func createPart(path string) (*os.File, error) {
	dir, prefix := filepath.Dir(path), durable.PartPrefix+filepath.Base(path)+"-"
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // its entries can't be listed, only made
		return nil, err
	}
	for _, e := range entries {
		if digits, ok := strings.CutPrefix(e.Name(), prefix); ok && strings.Trim(digits, "0123456789") == "" {
			removeUnlocked(filepath.Join(dir, e.Name()))
		}
	}
	for {
		part, err := os.CreateTemp(dir, prefix+"*") // 0600
		if err != nil {
			return nil, err
		}
		_ = unix.Flock(int(part.Fd()), unix.LOCK_EX) // on a file system without locks, no part is removed
		var st unix.Stat_t
		if err := unix.Fstat(int(part.Fd()), &st); err != nil || st.Nlink > 0 {
			return part, nil
		}
		part.Close() // another process has removed it before it was locked
	}
}

func removeUnlocked(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.Remove(path) // the next one tries again
	}
}

// writeError says that the file can't be written.
func (o *outputFile) writeError(err error) error {
	return failed(fmt.Sprintf("%s can't be written: %v", o.path, problem.WithoutPath(err)),
		"name another file, on a disk with room that you may write to")
}

// Write implements io.Writer.
func (o *outputFile) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.bytes += int64(n)
	if err != nil && o.file != nil {
		err = o.writeError(err)
	}
	return n, err
}

// commit closes the file and gives it its name once it is on disk.
func (o *outputFile) commit() error {
	if o.file == nil {
		return nil
	}
	file := o.file
	if !o.part {
		o.file = nil
		if err := file.Close(); err != nil {
			return o.writeError(err)
		}
		return nil
	}
	if err := errors.Join(file.Sync(), os.Rename(file.Name(), o.path), file.Close()); err != nil {
		return o.writeError(err)
	}
	o.file = nil
	return durable.SyncFolder(filepath.Dir(o.path))
}

// discard removes an output that was not committed.
func (o *outputFile) discard() {
	if o.file == nil {
		return
	}
	o.file.Close()
	if o.part {
		os.Remove(o.file.Name())
	}
}

// writeWhole writes a temporary file and renames it, so that the file is complete or absent.
func writeWhole(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".mlfnode-*"+filepath.Ext(path))
	if err != nil {
		return err
	}
	err = write(tmp)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

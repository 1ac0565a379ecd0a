// Package durable replaces and removes small files atomically and durably: a kill or a power cut
// leaves the old content or the new, and after the return always the new. A rename alone is not
// durable until its folder is synced.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/grid/problem"
)

// PartPrefix begins the names of the temporary files beside the files that they replace. A kill
// leaves them behind.
const PartPrefix = ".part-"

// WriteFile replaces a file's content and permissions, regardless of the umask. It can replace the
// file of a running program. The error names the file.
func WriteFile(path string, content []byte, mode fs.FileMode) error {
	if err := replace(path, content, mode, (*os.File).Sync); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// ReplaceFile is WriteFile without the syncs: a kill leaves the old content or the new, a power cut
// anything. It is for what is about processes, which a power cut ends.
func ReplaceFile(path string, content []byte, mode fs.FileMode) error {
	return replace(path, content, mode, func(*os.File) error { return nil })
}

func replace(path string, content []byte, mode fs.FileMode, sync func(*os.File) error) error {
	dir, name := filepath.Split(path)
	part, err := os.CreateTemp(filepath.Clean(dir), PartPrefix+name+"-*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, problem.WithoutPath(err))
	}
	_, err = part.Write(content)
	if err = errors.Join(err, part.Chmod(mode), sync(part), part.Close()); err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		_ = os.Remove(part.Name()) // the first error counts
		return fmt.Errorf("write %s: %w", path, problem.WithoutPath(err))
	}
	return nil
}

// Remove removes a file if it exists.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// Clean removes the temporary files of interrupted calls of WriteFile from a folder. Nothing else
// may write to the folder meanwhile.
func Clean(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), PartPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// SyncFolder syncs the entries of a folder to the disk, but not the content of its files.
func SyncFolder(dir string) error {
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("sync a folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync the folder %s: %w", dir, err)
	}
	return nil
}

// SyncFileSystem syncs the file system of a folder to the disk, in one call for any number of
// files. The error is an *fs.PathError.
func SyncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}

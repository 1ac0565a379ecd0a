package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/node"
)

func artifactsCommand(a *app) *cobra.Command {
	var dir string
	c := onSweep("artifacts SWEEP[/TRIAL]", "List the files that trials left, or fetch them",
		"  mlfnode artifacts chainer-1\n  mlfnode artifacts chainer-1/17 -o out",
		func(ctx context.Context, id grid.TrialID) error {
			return a.withSession(ctx, func(s *node.Session) error {
				r, err := s.Client().Trials().Artifacts(ctx, id.Sweep, id.Index)
				if err != nil {
					return err
				}
				defer r.Close()
				if dir == "" {
					return printArtifacts(a.console, r)
				}
				return fetchArtifacts(a.console, r, dir)
			})
		})
	c.Flags().StringVarP(&dir, "output", "o", "", "fetch the files into this folder, each trial's under its index")
	a.jsonFlag(c)
	return c
}

// artifact is a file as `artifacts --json` lists it.
type artifact struct {
	File  string `json:"file"` // under the trial's index
	Bytes int64  `json:"bytes"`
}

func printArtifacts(ui *console, r io.Reader) error {
	out := jsonArray{w: ui.stdout}
	t := newTable(ui.stdout, "bytes", "file")
	files := 0
	err := eachFile(r, func(h *tar.Header, _ io.Reader) error {
		files++
		if ui.json {
			return out.add(artifact{h.Name, h.Size})
		}
		t.row(bytesText(h.Size), h.Name)
		return nil
	})
	switch {
	case err != nil:
		return err
	case ui.json:
		return out.close()
	case files == 0:
		ui.say("no trial has stored any files yet; name them under artifacts in project.yaml, " +
			"or have the program write them to $MLF_OUT. " +
			"If the files of a trial could not be stored, mlfnode trials SWEEP says so")
		return nil
	}
	return t.flush()
}

// eachFile calls fn for every file in the stream.
func eachFile(r io.Reader, fn func(*tar.Header, io.Reader) error) error {
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return failed(fmt.Sprintf("the download is incomplete: %v", err), "run the command again")
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := fn(h, in); err != nil {
			return err
		}
	}
}

// fetchArtifacts writes the files to dir. It never overwrites a file: one that exists is an error.
func fetchArtifacts(ui *console, r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return failed(fmt.Sprintf("the folder %s can't be created: %v", dir, problem.WithoutPath(err)),
			"choose another folder with -o")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer root.Close()
	count := 0
	err = eachFile(r, func(h *tar.Header, in io.Reader) error {
		count++
		return fetchFile(root, dir, h, in)
	})
	if err != nil {
		return err
	}
	ui.say("%s in %s", plural(int64(count), "file"), dir)
	return nil
}

func fetchFile(root *os.Root, dir string, h *tar.Header, in io.Reader) error {
	if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return notWritten(dir, h.Name, err)
	}
	f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(h.Mode).Perm()|0o600)
	if errors.Is(err, fs.ErrExist) {
		return failed(filepath.Join(dir, h.Name)+" already exists", "name an empty folder with -o")
	}
	if err != nil {
		return notWritten(dir, h.Name, err)
	}
	_, err = io.Copy(f, in)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		root.Remove(h.Name)
		return notWritten(dir, h.Name, err)
	}
	return nil
}

func notWritten(dir, name string, err error) error {
	return failed(fmt.Sprintf("%s can't be written: %v", filepath.Join(dir, name), problem.WithoutPath(err)),
		"choose a folder on another disk with -o")
}

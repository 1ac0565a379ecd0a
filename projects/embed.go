package projects

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

//go:embed all:chainer all:bowcnn all:template
var embedded embed.FS

// template is the embedded folder that New copies.
const template = "template"

// examples returns the names of the embedded projects that can be swept.
func examples() []string { return []string{"chainer", "bowcnn"} }

// files lists the files of an embedded folder, without what a run in that folder leaves behind.
func files(folder string) (names []string, err error) {
	err = fs.WalkDir(embedded, folder, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "__pycache__":
			return fs.SkipDir
		case !d.IsDir():
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// extract writes an example to a folder under cache, once for each content, and returns that
// folder.
func extract(name, cache string) (string, error) {
	sum, err := contentHash(name)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name+"-"+sum)
	if isFolder(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil { // this may create the state folder as well
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	temp, err := os.MkdirTemp(cache, "."+name+"-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the example %s: %w", name, err)
	}
	defer os.RemoveAll(temp)
	if err := copyEmbedded(name, temp, nil); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil && !isFolder(dir) { // another process may have been first
		return "", fmt.Errorf("keep the example %s: %w", name, err)
	}
	return dir, nil
}

// contentHash returns a name for the content of an embedded folder.
func contentHash(folder string) (string, error) {
	names, err := files(folder)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range names {
		data, err := embedded.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// copyEmbedded writes an embedded folder to dir, which exists; edit may change each file's text.
func copyEmbedded(folder, dir string, edit func(name, text string) string) error {
	names, err := files(folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		if edit != nil {
			data = []byte(edit(path.Base(name), string(data)))
		}
		to := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(name, folder+"/")))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o644)); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return os.Chmod(dir, 0o755)
}

func isFolder(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

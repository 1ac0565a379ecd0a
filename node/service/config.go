package service

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// setting finds the value of a top-level setting in a node.yaml. It reads no YAML beyond a plain `key: value`, which is all
// that an installation looks for; the node itself reads the file for good.
func setting(text, key string) string {
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, key+":")
		if !ok {
			continue
		}
		if i := strings.Index(value, " #"); i >= 0 {
			value = value[:i]
		}
		return strings.Trim(strings.TrimSpace(value), `"'`)
	}
	return ""
}

// newConfig is the node.yaml of a fresh installation.
func newConfig(state, seed string) string {
	text := fmt.Sprintf("# Settings of this host's mlfnode; `systemctl reload mlfnode` has them read again.\n"+
		"# The node.yaml that comes with mlfnode explains every setting.\n\n# Folder for everything the node keeps.\nstate: %q\n", state)
	if seed != "" {
		text += fmt.Sprintf("\n# The master, as HOST or HOST:PORT.\nseed: %q\n", seed)
	}
	return text
}

// digestOf tells whether a file is still as it was written.
func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// readIfThere gives "" for a file that is not there.
func readIfThere(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// replace writes a file in one step, so that nobody ever reads half of it and a program that runs can be replaced.
func replace(file string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone when all went well
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

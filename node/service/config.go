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

	"mlfnode/node/durable"
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

// place writes a file that may be the first in its folder.
func place(file string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(file, content, mode)
}

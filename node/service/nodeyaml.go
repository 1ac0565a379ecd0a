package service

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node/durable"
)

// setting returns the value of a top-level setting in a node.yaml. It reads only a plain `key:
// value`, which is enough for an installation; the node validates the file when it starts.
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

// digest identifies the content of a file.
func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// readIfExists returns the content of a file, or "" if it does not exist.
func readIfExists(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// writeFile writes a file, and makes its folder if needed.
func writeFile(file string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(file, content, mode)
}

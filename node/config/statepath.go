package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// StatePath returns the absolute path of a state folder that a person wrote: a relative path starts
// at the current folder, and ~ is the user's home. Shims, which run in another folder, and
// commands that run elsewhere need the absolute path.
func StatePath(text string) (string, error) {
	path := text
	if rest, ok := strings.CutPrefix(text, "~"); ok {
		if rest != "" && rest[0] != '/' {
			return "", fmt.Errorf("%q names another user's home; write the path in full", text)
		}
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the folder %s: %w; write the path in full", text, err)
		}
		path = filepath.Join(home, rest)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the folder %s: %w; write the path in full", text, err)
	}
	return path, nil
}

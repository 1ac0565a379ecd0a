package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// readSettings reads node.yaml; the name is for messages.
func readSettings(file string) (fileSettings, string, error) {
	var s fileSettings
	if file == "" {
		file = os.Getenv("MLF_CONFIG")
	}
	explicit := file != ""
	candidates := []string{file}
	if !explicit {
		candidates = []string{"/etc/mlfnode/node.yaml"}
		if dir, err := os.UserConfigDir(); err == nil {
			candidates = append([]string{filepath.Join(dir, "mlfnode", "node.yaml")}, candidates...)
		}
	}
	for _, name := range candidates {
		b, err := os.ReadFile(name)
		if !explicit && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			continue // root alone may read the settings of the system's node; a user's own node is another one
		}
		if err != nil {
			return s, name, fmt.Errorf("the settings file %s can't be read: %w", name, problem.WithoutPath(err))
		}
		err = yamlfile.DecodeStrict(name, b, &s, "there is no setting $2", "the value does not fit the setting")
		return s, name, err
	}
	return s, "defaults", nil
}

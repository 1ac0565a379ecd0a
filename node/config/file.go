package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/lazyregexp"
	"mlfnode/node/durable"
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
			return s, name, fmt.Errorf("the settings file %s can't be read: %w", name, durable.WithoutPath(err))
		}
		dec := yaml.NewDecoder(bytes.NewReader(b))
		dec.KnownFields(true)
		if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
			return s, name, explainYAML(name, err)
		}
		return s, name, nil
	}
	return s, "defaults", nil
}

// The messages of yaml.v3 about a file that it cannot decode.
var (
	unknownField = lazyregexp.New(`^line (\d+): field (\S+) not found in type .*$`)
	wrongKind    = lazyregexp.New(`^line (\d+): cannot unmarshal .*$`)
	syntaxFault  = lazyregexp.New(`^yaml: line (\d+): (.*)$`)
)

// explainYAML returns what is wrong with the file and where, with a line for each problem.
func explainYAML(name string, err error) error {
	lines := []string{err.Error()}
	if e := (*yaml.TypeError)(nil); errors.As(err, &e) {
		lines = e.Errors
	}
	var problems []error
	for _, line := range lines {
		text := unknownField.Get().ReplaceAllString(line, name+":$1: there is no setting $2")
		text = wrongKind.Get().ReplaceAllString(text, name+":$1: the value does not fit the setting")
		text = syntaxFault.Get().ReplaceAllString(text, name+":$1: this is not valid YAML: $2")
		if text == line {
			text = name + ": " + line
		}
		problems = append(problems, errors.New(text))
	}
	return errors.Join(problems...)
}

package grid

import (
	"path/filepath"
	"strings"

	"mlfnode/grid/problem"
)

// Link is a path outside of the project that trials see in place, on each node.
type Link struct {
	Path string `json:"path,omitempty"` // of the link in the attempt's folder; empty if programs use the path itself
	To   string `json:"to"`             // absolute
}

// maxShared bounds the number of paths that a task shares.
const maxShared = 10_000

// checkShare returns an error for links that would leave the attempt's folder.
func (t *Task) checkShare() error {
	if len(t.Share)+len(t.Links) > maxShared {
		return problem.Errorf("Share the folder that contains them.", "the task shares more than %d files and folders",
			maxShared)
	}
	for _, text := range t.Share {
		if text == "" || strings.ContainsRune(text, 0) {
			return problem.Errorf("Write it like data/**.", "share has %q, which names no file", text)
		}
	}
	for _, l := range t.Links {
		switch {
		case strings.ContainsRune(l.Path+l.To, 0):
			return problem.Errorf("Take it out.", "a shared link contains a zero byte")
		case !filepath.IsAbs(l.To):
			return problem.Errorf("Give the absolute path.", "the task shares %q, which is not an absolute path", l.To)
		case l.Path != "" && (!filepath.IsLocal(l.Path) || filepath.Clean(l.Path) != l.Path || l.Path == "."):
			return problem.Errorf("Name a file in the project.", "the shared link %q leaves the project's folder",
				l.Path)
		}
	}
	return nil
}

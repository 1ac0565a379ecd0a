package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/durable"
	"mlfnode/projects"
)

// purge removes what mlfnode has put into the root folder, and nothing else; then the folders that
// have become empty.
func (o *operation) purge() error {
	if home, err := os.UserHomeDir(); err == nil {
		if rel, err := filepath.Rel(o.Root, home); err == nil && filepath.IsLocal(rel) {
			return fmt.Errorf("the folder %s contains the home folder and is not removed", o.Root)
		}
	}
	if _, err := os.Stat(o.Root); err != nil || !isNodeFolder(o.Layout) {
		return nil
	}
	if err := purgeProjects(o.Layout); err != nil {
		return err
	}
	bin := filepath.Dir(o.Program())
	for _, pattern := range []string{ // not the folders bin and projects, which may contain files of others
		o.Program(), filepath.Join(bin, ".digest"), filepath.Join(bin, ".ship-*"),
		filepath.Join(bin, durable.PartPrefix+"*"),
		o.Config(), o.State(), o.Log(), o.Log() + ".1", recordFile(o.Layout), supervisorLock(o.Layout),
		supervisorID(o.Layout),
		lockFile(o.Layout), filepath.Join(o.Root, ".wanted.yaml"), filepath.Join(o.Root, durable.PartPrefix+"*"),
	} {
		paths, err := matchFiles(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := projects.RemoveTree(path); err != nil { // copies of read-only folders are read-only
				return fmt.Errorf("remove what the node has stored: %w", err)
			}
		}
	}
	_ = os.Remove(bin) // it stays if it contains programs of the user
	if err := os.Remove(o.Root); err != nil {
		o.response.Notes = append(o.response.Notes, o.Root+" was kept, because it contains other files as well")
		o.recordChange("removed the node from %s", o.Root)
		return nil
	}
	o.recordChange("removed %s", o.Root)
	return nil
}

// matchFiles returns the files of a folder whose names match the last element of a pattern. The
// elements before it are taken literally.
func matchFiles(pattern string) ([]string, error) {
	dir, last := filepath.Split(pattern)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find what the node has stored: %w", err)
	}
	var found []string
	for _, e := range entries {
		if ok, _ := filepath.Match(last, e.Name()); ok { // the patterns are valid
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, nil
}

// purgeProjects removes the pushed files, which are listed beside each project. Files of trials and
// of the user stay.
func purgeProjects(p protocol.Layout) error {
	lists, err := matchFiles(filepath.Join(p.Projects(), ".*.pushed"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		project := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(list), "."), ".pushed")
		if err := purgeProject(filepath.Join(p.Projects(), project), list); err != nil {
			return fmt.Errorf("remove the project %s: %w", project, err)
		}
	}
	drafts, err := matchFiles(filepath.Join(p.Projects(), durable.PartPrefix+"*"))
	if err != nil {
		return err
	}
	for _, draft := range drafts {
		if err := removeIfPresent(draft); err != nil {
			return err
		}
	}
	_ = os.Remove(p.Projects()) // it stays if it contains projects of the user
	return nil
}

// purgeProject removes the files of a project that are in its list, and the list.
func purgeProject(dir, list string) error {
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return removeIfPresent(list)
	case err != nil:
		return err
	}
	defer root.Close()
	for _, name := range readPushed(list) {
		if _, err := removePushed(root, name); err != nil {
			return err
		}
	}
	_ = os.Remove(dir) // it stays if it contains results
	return removeIfPresent(list)
}

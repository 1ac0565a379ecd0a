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

// nodeFiles returns patterns of the node's own files and folders in a root folder. The folders bin
// and projects are not among them: they may contain files of others.
func nodeFiles(p protocol.Layout) []string {
	bin := filepath.Dir(p.Program())
	return []string{
		p.Program(), filepath.Join(bin, ".digest"), filepath.Join(bin, ".ship-*"), filepath.Join(bin, durable.PartPrefix+"*"),
		p.Config(), p.State(), p.Log(), p.Log() + ".1", recordFile(p), supervisorLock(p), supervisorID(p), lockFile(p),
		filepath.Join(p.Root, ".wanted.yaml"), filepath.Join(p.Root, durable.PartPrefix+"*"),
	}
}

// purge removes what mlfnode has put into the root folder, and nothing else; then the folders that
// have become empty.
func (o *operation) purge() error {
	if home, err := os.UserHomeDir(); err == nil && isInside(o.Root, home) {
		return fmt.Errorf("the folder %s contains the home folder and is not removed", o.Root)
	}
	if _, err := os.Stat(o.Root); err != nil || !o.isNodeFolder() {
		return nil
	}
	if err := o.purgeProjects(); err != nil {
		return err
	}
	for _, pattern := range nodeFiles(o.Layout) {
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
	_ = os.Remove(filepath.Dir(o.Program())) // it stays if it contains programs of the user
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
func (i *installation) purgeProjects() error {
	lists, err := matchFiles(filepath.Join(i.Projects(), ".*.pushed"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		project := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(list), "."), ".pushed")
		if err := purgeProject(filepath.Join(i.Projects(), project), readPushed(list)); err != nil {
			return fmt.Errorf("remove the project %s: %w", project, err)
		}
		if err := removeIfPresent(list); err != nil {
			return fmt.Errorf("remove the project %s: %w", project, err)
		}
	}
	drafts, err := matchFiles(filepath.Join(i.Projects(), durable.PartPrefix+"*"))
	if err != nil {
		return err
	}
	for _, draft := range drafts {
		if err := removeIfPresent(draft); err != nil {
			return err
		}
	}
	_ = os.Remove(i.Projects()) // it stays if it contains projects of the user
	return nil
}

func purgeProject(dir string, names []string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range names {
		if _, err := removePushed(root, name); err != nil {
			return err
		}
	}
	_ = os.Remove(dir) // it stays if it contains results
	return nil
}

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

// ours are the files and folders of the node's own in a root folder, by patterns. The folders bin and projects are not among them:
// they may hold what others have put there.
func ours(p protocol.Layout) []string {
	bin := filepath.Dir(p.Program())
	return []string{
		p.Program(), filepath.Join(bin, ".digest"), filepath.Join(bin, ".ship-*"), filepath.Join(bin, durable.PartPrefix+"*"),
		p.Config(), p.State(), p.Log(), p.Log() + ".1", recordFile(p), supervisorLock(p), supervisorID(p), lockFile(p),
		filepath.Join(p.Root, ".wanted.yaml"), filepath.Join(p.Root, durable.PartPrefix+"*"),
	}
}

// purge removes what mlfnode has put into the root folder, and nothing else; then the folders that are empty.
func (w *work) purge() error {
	if home, err := os.UserHomeDir(); err == nil && inside(w.Root, home) {
		return fmt.Errorf("the folder %s contains the home folder and is not removed", w.Root)
	}
	if _, err := os.Stat(w.Root); err != nil || !w.marked() {
		return nil
	}
	if err := w.purgeProjects(); err != nil {
		return err
	}
	for _, pattern := range ours(w.Layout) {
		paths, err := match(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := projects.RemoveTree(path); err != nil { // copies of read-only folders are read-only
				return fmt.Errorf("remove what the node has stored: %w", err)
			}
		}
	}
	_ = os.Remove(filepath.Dir(w.Program())) // it may hold programs of the user
	if err := os.Remove(w.Root); err != nil {
		w.reply.Notes = append(w.reply.Notes, w.Root+" was kept, because it contains other files as well")
		w.did("removed the node from %s", w.Root)
		return nil
	}
	w.did("removed %s", w.Root)
	return nil
}

// match gives the files of a folder whose names fit the last element of a pattern; what stands before that is no pattern.
func match(pattern string) ([]string, error) {
	dir, last := filepath.Split(pattern)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for what the node has stored: %w", err)
	}
	var found []string
	for _, e := range entries {
		if ok, _ := filepath.Match(last, e.Name()); ok { // the patterns are ours
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, nil
}

// purgeProjects removes the files that were pushed, as listed beside each project. What trials or the user left there stays.
func (w *work) purgeProjects() error {
	lists, err := match(filepath.Join(w.Projects(), ".*.pushed"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		project := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(list), "."), ".pushed")
		if err := purgeProject(filepath.Join(w.Projects(), project), readPushed(list)); err != nil {
			return fmt.Errorf("remove the project %s: %w", project, err)
		}
		if err := removeFile(list); err != nil {
			return fmt.Errorf("remove the project %s: %w", project, err)
		}
	}
	drafts, err := match(filepath.Join(w.Projects(), durable.PartPrefix+"*"))
	if err != nil {
		return err
	}
	for _, draft := range drafts {
		if err := removeFile(draft); err != nil {
			return err
		}
	}
	_ = os.Remove(w.Projects()) // it may hold projects of the user
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
	_ = os.Remove(dir) // it may hold results
	return nil
}

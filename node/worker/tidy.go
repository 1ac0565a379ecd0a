package worker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mlfnode/node/durable"
	"mlfnode/projects"
)

const (
	// keepUnused is how long a node keeps unpacked bundles and setups that no trial asks for.
	keepUnused = 14 * 24 * time.Hour
	// bootID changes with each start of the machine.
	bootID = "/proc/sys/kernel/random/boot_id"
)

// tidy removes bundles and setups that no trial has asked for in a long time. After a start of the machine it removes all
// bundles: they are not synced when they are unpacked, so a power cut can have left files without content.
func tidy(dir, boot string, now time.Time) error {
	was, err := os.ReadFile(filepath.Join(dir, "boot"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(was) != boot {
		if err := removeTree(filepath.Join(dir, "bundles")); err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(dir, "boot"), []byte(boot), 0o600); err != nil {
			return err
		}
	}
	keep := now.Add(-keepUnused)
	if err := removeUnused(filepath.Join(dir, "bundles"), "", keep); err != nil {
		return err
	}
	return removeUnused(filepath.Join(dir, "setups"), setupDone, keep)
}

// removeUnused removes the folders that were not used since keep, each with its log. Where a file with the ending mark stands
// beside a folder, it tells when that was.
func removeUnused(dir, mark string, keep time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path + mark)
		if err != nil {
			info, err = e.Info()
		}
		if err != nil || !e.IsDir() || info.ModTime().After(keep) {
			continue
		}
		err = errors.Join(os.RemoveAll(path+".log"), os.RemoveAll(path+projects.ContentsSuffix))
		if mark != "" { // before the folder, so that a half removed one is not taken for whole
			err = errors.Join(err, os.RemoveAll(path+mark))
		}
		if err = errors.Join(err, removeTree(path)); err != nil {
			return err
		}
	}
	return nil
}

// used notes that a trial has asked for what path stands for.
func used(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now) // at worst it is made again sooner
}

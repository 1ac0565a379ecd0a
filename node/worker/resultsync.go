package worker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// syncAfter is how long an attempt must have run for its results to be worth a sync of the disk,
// which takes some milliseconds. What is not synced survives the death of the agent, and runs again
// when the machine goes down before its report is stored.
const syncAfter = 10 * time.Second

// writeResult writes how the attempt ended into its spool. After a long run it also syncs all that
// the attempt has left to the disk, and records that in the manifest.
func (a *attempt) writeResult(m *manifest, result *grid.Result) error {
	m.Result, m.Cut = result, a.output.cut
	if err := a.spool.writeManifest(m); err != nil {
		return err
	}
	if time.Duration(result.Usage.Wall)*time.Microsecond < syncAfter {
		return nil
	}
	files, err := a.listArtifacts()
	if err != nil {
		return err
	}
	err = errors.Join(a.spool.stdout.Sync(), a.spool.stderr.Sync(), syncFile(a.spool.metrics))
	folders := map[string]bool{}
	for _, f := range files {
		err = errors.Join(err, syncFile(f.path))
		for dir := filepath.Dir(f.path); len(dir) > len(a.spool.dir); dir = filepath.Dir(dir) {
			folders[dir] = true
		}
	}
	for dir := range folders {
		err = errors.Join(err, durable.SyncFolder(dir))
	}
	if err = errors.Join(err, durable.SyncFolder(a.spool.dir)); err != nil {
		return err
	}
	m.Synced = true
	return errors.Join(a.spool.writeManifest(m), a.spool.manifest.Sync())
}

// syncFile syncs a file to the disk, if it exists.
func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

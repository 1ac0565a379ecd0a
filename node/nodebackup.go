package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/backup"
	"mlfnode/node/checkpoint"
	"mlfnode/node/config"
	"mlfnode/node/durable"
)

// aboutBackup describes a backup that is made now.
func aboutBackup(c *config.Config) backup.About {
	return backup.About{Made: time.Now().UTC(), Node: c.Node, Version: c.Version}
}

// Backup writes a backup of the master in the state folder, which must not be running. A final one
// is for a move: that master must not run again, see Retire. Backup returns ErrInUse if another
// process holds the folder.
func Backup(ctx context.Context, cfg config.Config, w io.Writer, final bool) error {
	lock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := CheckMoved(cfg.StateDir); err != nil && !final {
		return err
	}
	server, err := jetstream.Start(jetstream.Config{
		Dir: filepath.Join(cfg.StateDir, "jetstream"), Node: cfg.Node, Logger: cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("start the store: %w", err)
	}
	defer server.Close()
	store, err := server.OpenForBackup(ctx)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer store.Close()
	snapshots, err := checkpoint.OpenStore(filepath.Join(cfg.StateDir, "snapshots"),
		cfg.Retention.Checkpoints, cfg.Logger)
	if err != nil {
		return err
	}
	about := aboutBackup(&cfg)
	about.Final = final
	return backup.Write(ctx, w, backup.Source{Store: store, Snapshots: snapshots, StateDir: cfg.StateDir}, about)
}

// movedFile is in the state folder of a master that was moved to another machine.
const movedFile = "moved"

// Retire keeps the master in the state folder, which must not be running, from starting again: one
// on another machine has replaced it.
func Retire(cfg config.Config) error {
	at := time.Now().UTC().Format(time.RFC3339) + "\n"
	return durable.WriteFile(filepath.Join(cfg.StateDir, movedFile), []byte(at), 0o600)
}

// CheckMoved returns an error if the master in a state folder was moved to another machine: it must
// not start, since its workers would have two masters, and commands must go to the new one. The
// error is an *api.Error.
func CheckMoved(state string) error {
	file := filepath.Join(state, movedFile)
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out whether this master was moved: %w", err)
	}
	return &api.Error{
		Msg: "the master of this machine was moved to another one on " +
			info.ModTime().Local().Format("2 January 2006 15:04"),
		Hint: "start it there; if it never ran there, rm " + file + " lets it start here",
	}
}

// Moved reports whether Retire keeps the master in the state folder from starting.
func Moved(cfg config.Config) bool {
	_, err := os.Lstat(filepath.Join(cfg.StateDir, movedFile))
	return err == nil
}

// PutAside renames the state folder of a master that was moved to another machine, so that this
// machine can be a worker, and returns its new name. It leaves any other folder alone and returns
// "". It returns ErrInUse if another process holds the folder.
func PutAside(cfg config.Config) (string, error) {
	if !Moved(cfg) {
		return "", nil
	}
	lock, err := lockState(cfg.StateDir)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	aside := cfg.StateDir + ".moved"
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = fmt.Sprintf("%s.moved-%d", cfg.StateDir, n)
	}
	if err := os.Rename(cfg.StateDir, aside); err != nil {
		return "", fmt.Errorf("put the state of the moved master aside: %w", err)
	}
	return aside, durable.SyncFolder(filepath.Dir(aside))
}

// CheckRestored returns an error for a folder that a restore has filled only in part: a master
// started there would found a new cluster with the sweeps in the folder.
func CheckRestored(state string) error {
	if !backup.Interrupted(state) {
		return nil
	}
	return &api.Error{
		Msg: "a restore to the state folder " + state + " was interrupted", Hint: "run it again: mlfnode restore FILE",
	}
}

// Restore fills the state folder from the backup of a master. It returns backup.ErrOccupied for a
// folder that is not empty, and ErrInUse if another process holds it.
func Restore(ctx context.Context, cfg config.Config, r io.Reader) (backup.About, error) {
	lock, err := lockFolder(cfg.StateDir)
	if err != nil {
		return backup.About{}, err
	}
	defer lock.Close()
	return backup.Restore(ctx, r, backup.Target{
		StateDir: cfg.StateDir, Logger: cfg.Logger,
		Check: func(trustDir string) error { return checkMasterName(trustDir, cfg.Node) },
	})
}

// checkMasterName returns an error if a worker of the cluster has the name.
func checkMasterName(trustDir string, name grid.NodeID) error {
	a, err := trust.OpenAuthority(trustDir, nil)
	if err != nil {
		return fmt.Errorf("open the cluster's authority: %w", err)
	}
	for _, known := range a.Nodes() {
		if known.Node == name && known.Role == grid.Worker && known.Forgotten.IsZero() {
			return &api.Error{
				Msg:  fmt.Sprintf("the cluster has a worker named %s, which is also the name of this machine", name),
				Hint: "give the master another name with node: in node.yaml or MLF_NODE, here and when it starts",
			}
		}
	}
	return nil
}

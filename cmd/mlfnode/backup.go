package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/backup"
)

func backupCommand(a *app) *cobra.Command {
	final := false
	c := &cobra.Command{
		Use: "backup FILE", Short: "Back up this machine's master to one file", Args: oneArgument,
		Long: `backup writes the sweeps, results, output, artifacts, checkpoints, nodes and tokens of this
machine's master to FILE (- for standard output). The master may keep running: the backup contains
everything that it had acknowledged when the backup began. The file contains the cluster's keys, so
whoever has it controls the cluster; only you can read it.

Use --move to move the master to another machine. Stop the master first; it will not start here
again.`,
		Example: `  mlfnode backup /mnt/backup/cluster.mlf
  mlfnode backup --move - | ssh hostB mlfnode restore -`,
		RunE: func(c *cobra.Command, args []string) error { return writeBackup(c.Context(), a, args[0], final) },
	}
	c.Flags().BoolVar(&final, "move", false, "for a move: the master will not start on this machine again")
	return c
}

func writeBackup(ctx context.Context, a *app, file string, final bool) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	if node.RoleOf(cfg.StateDir) != grid.Master {
		return failed("there is no master on this machine",
			"run this on the master's machine; if its service uses another state folder, name it with --state-dir")
	}
	if err := makeStateFolder(a.console, cfg.StateDir); err != nil {
		return err
	}
	out, err := openOutputFile(a.stdout, file)
	if err != nil {
		return err
	}
	defer out.discard()
	switch s, _ := node.At(ctx, cfg); {
	case s != nil && final:
		s.Close()
		return failed("the master is running, so the backup would miss what it does next",
			"stop it, then: mlfnode backup --move "+file)
	case s != nil:
		err = fetchBackup(ctx, s, out)
	default:
		err = node.Backup(ctx, cfg, out, final)
	}
	if errors.Is(err, node.ErrInUse) {
		return failed("the master is starting or stopping", "try again in a moment")
	}
	if err == nil {
		err = out.commit()
	}
	if err == nil && final {
		err = node.Retire(cfg)
	}
	if err != nil {
		return err
	}
	size := humanize.IBytes(uint64(out.bytes))
	if file == "-" {
		a.say("wrote a backup of %s", size)
		return nil
	}
	a.say("wrote a backup of %s; restore it on an empty machine with: mlfnode restore %s", size, file)
	return nil
}

func fetchBackup(ctx context.Context, s *node.Session, out io.Writer) error {
	defer s.Close()
	in, err := s.Client().Backup(ctx)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(out, in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return failed("the backup ended early", "the master's log says why")
	}
	return err
}

func restoreCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Restore the master from a backup on this machine", Args: oneArgument,
		Long: `restore fills the empty state folder of this machine from a backup of a master (- for standard
input). Then start the master, with mlfnode master or as a service; the old one must not run any
more. Workers find the new machine through each other. What happened after the backup was made is
lost: trials that ran since then run again, and some sweep numbers are skipped.`,
		Example: `  mlfnode restore /mnt/backup/cluster.mlf
  mlfnode master`,
		RunE: func(c *cobra.Command, args []string) error { return restoreBackup(c.Context(), a, args[0]) },
	}
}

func restoreBackup(ctx context.Context, a *app, file string) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	in := os.Stdin
	if file != "-" {
		if in, err = os.Open(file); err != nil {
			return usage(fmt.Sprintf("the backup %s can't be read: %v", file, problem.WithoutPath(err)), "")
		}
		defer in.Close()
	}
	if err := makeStateFolder(a.console, cfg.StateDir); err != nil {
		return err
	}
	about, err := node.Restore(ctx, cfg, in)
	var refusal *api.Error
	switch {
	case errors.Is(err, node.ErrInUse):
		return failed(fmt.Sprintf("a node is running with the state folder %s", relativePath(cfg.StateDir)),
			"stop it, or choose another folder with --state-dir")
	case errors.Is(err, backup.ErrOccupied):
		return failed(err.Error(), "move the folder away, or choose another one with --state-dir")
	case errors.Is(err, backup.ErrNoBackup):
		return usage(file+" is not a backup of a master", "mlfnode backup FILE makes one")
	case errors.As(err, &refusal):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return failed(fmt.Sprintf("nothing was restored: the disk of the state folder %s is full",
			relativePath(cfg.StateDir)),
			"make room on that disk, or keep state on another one with --state-dir")
	case err != nil:
		return failed("nothing was restored: "+oneLine(err.Error()), "fix the cause and run it again")
	}
	a.say("restored the master %s as of %s; start it with: mlfnode master, or: mlfnode service install --role master",
		about.Node, dayAndTime(about.Made))
	return nil
}

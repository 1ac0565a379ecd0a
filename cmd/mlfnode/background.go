package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/node"
)

// hostCommand runs a node until no sweep is left to run. --detach starts it in the background.
func hostCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "host", Hidden: true, Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.attach(c.Context(), true)
			if err != nil {
				return err
			}
			defer s.Close()
			return hostUntilIdle(c.Context(), s)
		},
	}
}

// firstSweepTimeout bounds how long a node in the background waits for its first sweep.
const firstSweepTimeout = 30 * time.Second

func hostUntilIdle(ctx context.Context, s *node.Session) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(firstSweepTimeout); time.Now().Before(deadline); {
		all, err := s.Client().Sweeps().List(ctx)
		if err != nil {
			return err
		}
		for _, v := range all {
			if v.State == grid.SweepRunning {
				return s.Idle(ctx)
			}
		}
		<-tick.C
	}
	return nil
}

// ensureBackgroundNode starts a node that outlives this command, unless one runs or the sweep goes
// to a cluster.
func (c *connector) ensureBackgroundNode(ctx context.Context) error {
	d, err := c.destination()
	if err != nil || !d.alone() || node.Running(ctx, d.cfg) {
		return err
	}
	cfg := d.cfg
	if err := makeStateFolder(c.console, cfg.StateDir); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(cfg.StateDir, "node.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return failed(fmt.Sprintf("the node's log can't be written: %v", problem.WithoutPath(err)), "")
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "host", "--state-dir", cfg.StateDir, "--config", c.config, "--local")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a node in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			if node.Running(ctx, cfg) {
				return nil // another terminal has started one first
			}
			return failed("the node in the background ended immediately", "see why in "+log.Name())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if node.Running(ctx, cfg) {
				return nil
			}
		}
	}
}

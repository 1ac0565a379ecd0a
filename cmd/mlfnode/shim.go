package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"mlfnode/node"
)

// keeperCommand is what a node agent starts to run its programs, so that they outlive it.
func (a *app) keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: node.KeeperCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			signals, release := a.interrupts.take()
			defer release()
			if status := node.Keeper(args, signals, a.stderr); status != 0 {
				return failed(fmt.Sprintf("the keeper ended with status %d", status), "")
			}
			return nil
		},
	}
}

// reapCommand is what the guardian of a node without keepers becomes when that node has died.
func (a *app) reapCommand() *cobra.Command {
	return &cobra.Command{
		Use: node.ReapCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if status := node.ReapOrphans(args, a.stderr); status != 0 {
				return failed(fmt.Sprintf("the processes of a dead node could not be stopped (status %d)", status), "")
			}
			return nil
		},
	}
}

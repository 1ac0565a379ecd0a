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

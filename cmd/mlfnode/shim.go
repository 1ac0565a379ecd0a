package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"mlfnode/node"
)

// shimCommand is what a node agent starts to run its programs, so that they outlive it.
func (a *app) shimCommand() *cobra.Command {
	return &cobra.Command{
		Use: node.ShimCommand, Aliases: []string{node.FormerShimCommand}, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			signals, release := a.interrupts.capture()
			defer release()
			if status := node.Shim(args, signals, a.stderr); status != 0 {
				return failed(fmt.Sprintf("the shim ended with status %d", status), "")
			}
			return nil
		},
	}
}

// reapCommand is what the guardian of a node without shims becomes when that node has died.
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

package main

import (
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/provision"
)

// provisionCommand is what `mlfnode up`, `down` and the like run on the machines of a cluster. Its
// former name is kept for an older mlfnode elsewhere, and for a supervisor of that version, which
// restarts itself as this program.
func (a *app) provisionCommand() *cobra.Command {
	c := &cobra.Command{
		Use: protocol.Command + " ACTION", Aliases: []string{protocol.FormerCommand}, Hidden: true,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p := provision.Provisioner{Release: version().Version}
			return p.Serve(c.Context(), args[0], c.InOrStdin(), a.stdout)
		},
	}
	c.AddCommand(a.superviseCommand())
	return c
}

// superviseCommand keeps a node running on a machine without systemd. `mlfnode provision start`
// starts it.
func (a *app) superviseCommand() *cobra.Command {
	root := ""
	c := &cobra.Command{
		Use: provision.SuperviseAction, Hidden: true, Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			signals, release := a.interrupts.capture(syscall.SIGUSR2)
			defer release()
			if err := provision.Supervise(c.Context(), root, signals, a.stderr); err != nil {
				return failed(fmt.Sprintf("the node is not kept running: %v", err), "")
			}
			return nil
		},
	}
	c.Flags().StringVar(&root, "root", "", "the folder that holds the node")
	return c
}

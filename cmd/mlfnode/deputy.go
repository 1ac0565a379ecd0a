package main

import (
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
	"mlfnode/node/deputy"
)

// deputyCommand is what `mlfnode up` and its kin run on the machines of a cluster.
func (a *app) deputyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: bootstrap.DeputyCommand + " ACTION", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d := deputy.Deputy{Release: version().Version}
			return d.Serve(c.Context(), args[0], c.InOrStdin(), a.stdout)
		},
	}
	c.AddCommand(a.superviseCommand())
	return c
}

// superviseCommand keeps a node running on a machine without systemd. A deputy starts it.
func (a *app) superviseCommand() *cobra.Command {
	root := ""
	c := &cobra.Command{
		Use: deputy.Supervise, Hidden: true, Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			signals, release := a.interrupts.take(syscall.SIGUSR2)
			defer release()
			if err := deputy.Run(c.Context(), root, signals, a.stderr); err != nil {
				return failed(fmt.Sprintf("the node is not kept running: %v", err), "")
			}
			return nil
		},
	}
	c.Flags().StringVar(&root, "root", "", "the folder that holds the node")
	return c
}

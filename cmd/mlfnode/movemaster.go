package main

import (
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
)

func moveMasterCommand(a *app) *cobra.Command {
	r := &remote{}
	c := &cobra.Command{
		Use: "move-master HOST", Short: "Move the master to another machine of the cluster", Args: oneArgument,
		Long: `move-master stops the nodes on the master's machine and on HOST, one of the machines in cluster.yaml, copies everything that the
master has to HOST, writes the new roles to cluster.yaml, and brings the cluster up. HOST keeps its other role, and so does the machine
that was the master, where a copy of the state stays until you remove it. Trials on other machines continue; those on the two machines
get the grace of their tasks to end, and run again. If the copy fails, mlfnode up -f brings the cluster up as it was. If the command is
interrupted, run it again: until the roles are written, up -f refuses to start half of a move; after that, up -f completes it.`,
		Example: "  mlfnode move-master hostB",
	}
	r.add(a.console, c)
	c.RunE = func(c *cobra.Command, args []string) error {
		began := time.Now()
		cluster, err := r.cluster()
		if err != nil {
			return err
		}
		o, done, err := sshOptions(a.console, r, cluster)
		if err != nil {
			return err
		}
		defer done()
		release, err := completeOptions(a, &o, r, true)
		if err != nil {
			return err
		}
		defer release()
		all, err := bootstrap.MoveMaster(c.Context(), o, args[0], func(c *bootstrap.Cluster) error { return bootstrap.Save(r.file, c) })
		if err != nil {
			return explainProblem(err)
		}
		return reportOutcomes(c.Context(), a.console, all, began, false)
	}
	return c
}

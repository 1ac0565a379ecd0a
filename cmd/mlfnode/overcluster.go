package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
)

// clusterCommand makes a command that does something on all machines of the cluster in cluster.yaml.
func clusterCommand(ui *console, c *cobra.Command, act func(ctx context.Context, o bootstrap.Options, args []string) ([]bootstrap.Outcome, error)) *cobra.Command {
	r := &remote{}
	r.add(ui, c)
	if c.Args == nil {
		c.Args = noArgument
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		began := time.Now()
		cluster, err := r.cluster()
		if err != nil {
			return err
		}
		applied, err := bootstrap.LoadApplied(r.file)
		if err != nil {
			return err
		}
		left := cluster.Left(applied)
		if c.Name() == "down" {
			cluster.Hosts, left = append(cluster.Hosts, left...), nil
		}
		o, done, err := sshOptions(ui, r, cluster)
		if err != nil {
			return err
		}
		defer done()
		if c.Name() == "down" {
			o.Applied, o.Record = applied, func(c *bootstrap.Cluster) error { return bootstrap.SaveApplied(r.file, c) }
		}
		all, err := act(c.Context(), o, args)
		if err != nil {
			return explainProblem(err)
		}
		if c.Name() == "status" {
			markStopped(all, r.file)
		}
		for i := range left {
			ui.say("%s was brought up before and is no longer in %s; mlfnode up -f stops it, or: mlfnode down %[1]s", left[i].Name, r.file)
		}
		return reportOutcomes(c.Context(), ui, all, began, c.Name() == "status")
	}
	return c
}

func downCommand(ui *console) *cobra.Command {
	var order bootstrap.Stopping
	c := &cobra.Command{
		Use: "down [HOST…]", Short: "Stop everything that up has started", Args: cobra.ArbitraryArgs,
		Long: `down stops the nodes on the machines of cluster.yaml, or on those that you name, and verifies that no process, unit or port is left.
Running trials get the grace of their tasks to end, and what they saved is stored: down waits for that, at most 12 minutes. It says how
many trials were running; they run again on the remaining nodes, or when the cluster is up again. A machine that can't be reached does
not keep the others from stopping; run down again for that one.

Sweeps, results and all other files stay on the machines, and mlfnode up -f brings the cluster back with them. Until then your commands
still go to this cluster, and report that it is down.

--purge removes what mlfnode has put into the folder on each machine, and nothing else. It asks before it removes results; in a script,
--yes agrees.`,
		Example: "  mlfnode down\n  mlfnode down hostB\n  mlfnode down --purge",
	}
	c.Flags().BoolVar(&order.Purge, "purge", false, "also remove what mlfnode keeps on each machine, all results included")
	c.Flags().BoolVarP(&order.Yes, "yes", "y", false, "with --purge: do not ask before results are removed")
	return clusterCommand(ui, c, func(ctx context.Context, o bootstrap.Options, args []string) ([]bootstrap.Outcome, error) {
		order.Hosts = args
		all, err := bootstrap.Down(ctx, o, order)
		ui.warn(recordDown(ctx, all, order.Purge, cmp.Or(c.Flag("file").Value.String(), bootstrap.DefaultFile)))
		return all, err
	})
}

func pushCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "push", Short: "Copy the project's changed files to all machines",
		Long: `push copies the new and changed files of the cluster's project (-d of up) to the folder "projects" on each machine, and removes files
of an earlier push that are gone here. It touches nothing else. Sweeps do not need it, since they take their files along: it is for
people who log in there and submit sweeps, or try out the program, on the machines themselves.`,
		Example: "  mlfnode push",
	}
	return clusterCommand(a.console, c, func(ctx context.Context, o bootstrap.Options, _ []string) (all []bootstrap.Outcome, err error) {
		if o.Cluster.Project == "" {
			return nil, usage("the cluster has no project", "write `project: NAME` into cluster.yaml, or: mlfnode up -f -d NAME")
		}
		if o.Files, err = projectFiles(a, o.Cluster.Project); err != nil {
			return nil, err
		}
		defer o.Files.Close()
		return bootstrap.PushAll(ctx, o), nil
	})
}

func restartCommand(ui *console) *cobra.Command {
	c := &cobra.Command{
		Use: "restart [HOST…]", Short: "Restart nodes with this program and cluster.yaml, one at a time", Args: cobra.ArbitraryArgs,
		Long: `restart installs this program and the settings of cluster.yaml on the machines and restarts their nodes, one at a time, the master
last. Running trials continue. It stops at the first node that does not come back.`,
		Example: "  mlfnode restart\n  mlfnode restart hostB",
	}
	return clusterCommand(ui, c, bootstrap.Restart)
}

func statusCommand(ui *console) *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show the machines of the cluster, their services and what is wrong", Example: "  mlfnode status\n  mlfnode status --json",
	}
	return clusterCommand(ui, c, func(ctx context.Context, o bootstrap.Options, _ []string) ([]bootstrap.Outcome, error) {
		return bootstrap.Status(ctx, o), nil
	})
}

package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// app is what all commands share: the console, the way to a node, and the signals.
type app struct {
	*connector
	args       []string // of the command line
	interrupts *interrupts
}

// run executes one command line and returns its exit code. An interrupt cancels ctx.
func run(ctx context.Context, i *interrupts, args []string, stdout, stderr io.Writer) int {
	ui := newConsole(stdout, stderr)
	a := &app{connector: &connector{console: ui}, args: args, interrupts: i}
	root := rootCommand(a)
	root.SetArgs(joinOptional(root, args))
	root.SetOut(ui.stdout)
	root.SetErr(ui.stderr)
	return ui.printError(ui.stdout.complete(asInterruption(ctx, root.ExecuteContext(ctx))))
}

// The groups of the help.
const (
	groupSweeps   = "sweeps"
	groupResults  = "results"
	groupProjects = "projects"
	groupCluster  = "cluster"
	groupOther    = "other"
)

func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "mlfnode",
		Short: "Run an unmodified program over a grid of parameters, and lose nothing",
		Long: `mlfnode runs an unmodified command-line program over a grid of parameters, on this machine or a
cluster, and loses nothing: kill it, pull the plug, go on.`,
		Example: `  mlfnode sweep chainer
  mlfnode sweep --set lr=0.1,0.01 --set epoch=5:20:5 -- python3 -u train.py
  mlfnode results last --best 5`,
		SilenceErrors: true, SilenceUsage: true,
		SuggestionsMinimumDistance: 2,
		Args:                       unknownCommand,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.state, "state-dir", "", "folder for everything mlfnode keeps (default $XDG_STATE_HOME/mlfnode)")
	f.StringVar(&a.config, "config", "", "settings file (default ~/.config/mlfnode/node.yaml)")
	f.StringVar(&a.master, "master", os.Getenv("MLF_MASTER"),
		"talk to the cluster of this master, HOST or HOST:PORT (default the cluster that you joined or chose)")
	f.Lookup("master").DefValue = ""
	f.BoolVar(&a.local, "local", false, "use this machine alone, whatever cluster it is in")
	f.BoolVar(&a.noColor, "no-color", false, "no colours; the environment variable NO_COLOR does the same")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what the node does")
	root.SetFlagErrorFunc(badFlag)
	for _, g := range []cobra.Group{
		{ID: groupSweeps, Title: "Sweeps:"}, {ID: groupResults, Title: "Results:"},
		{ID: groupProjects, Title: "Projects:"}, {ID: groupCluster, Title: "Cluster:"},
		{ID: groupOther, Title: "Other:"},
	} {
		root.AddGroup(&g)
	}
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			if strings.Contains(c.Use, "SWEEP") {
				c.ValidArgsFunction = completeSweeps(a.connector)
			}
			root.AddCommand(c)
		}
	}
	add(groupSweeps, sweepCommand(a), pauseCommand(a), resumeCommand(a), cancelCommand(a), retryCommand(a),
		extendCommand(a), setCommand(a), removeCommand(a))
	add(groupResults, sweepsCommand(a), showCommand(a), trialsCommand(a), resultsCommand(a), compareCommand(a),
		logsCommand(a), artifactsCommand(a), reportCommand(a))
	add(groupProjects, newCommand(a.console), importCommand(a.console))
	add(groupCluster, masterCommand(a), joinCommand(a), membersCommand(a), gpusCommand(a), drainCommand(a),
		undrainCommand(a), forgetCommand(a), tokenCommand(a), caCommand(a), contextCommand(a), backupCommand(a),
		restoreCommand(a), upCommand(a), downCommand(a.console), pushCommand(a), restartCommand(a.console),
		moveMasterCommand(a), statusCommand(a.console), gpuSetupCommand(a.console))
	add(groupOther, monitorCommand(a), topCommand(a), serviceCommand(a), doctorCommand(a), schemaCommand(a.console),
		versionCommand(a.console))
	root.AddCommand(hostCommand(a), a.shimCommand(), a.reapCommand(), a.provisionCommand())
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	return root
}

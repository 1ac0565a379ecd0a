package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlfnode/cluster/bootstrap"
	"mlfnode/node"
)

// app is what all commands share.
type app struct {
	*connector
	args       []string // of the command line
	interrupts *interrupts
}

// run executes one command line and gives its exit code. ctx is what the interrupts end.
func run(ctx context.Context, i *interrupts, args []string, stdout, stderr io.Writer) int {
	ui := newConsole(stdout, stderr)
	a := &app{connector: &connector{console: ui}, args: args, interrupts: i}
	root := rootCommand(a)
	root.SetArgs(joinOptional(root, args))
	root.SetOut(ui.stdout)
	root.SetErr(ui.stderr)
	return ui.report(ui.stdout.complete(interruption(ctx, root.ExecuteContext(ctx))))
}

// joinOptional joins a flag that can stand alone, as -f of up, with the word after it: pflag takes a value there as -f=FILE only.
func joinOptional(root *cobra.Command, args []string) []string {
	c, _, err := root.Find(args)
	if err != nil {
		return args // it is said when it runs
	}
	optional := map[string]bool{}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.NoOptDefVal != "" && f.Value.Type() == "string" {
			optional["--"+f.Name], optional["-"+f.Shorthand] = true, f.Shorthand != ""
		}
	})
	var joined []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if optional[arg] && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			arg += "=" + args[i]
		}
		joined = append(joined, arg)
	}
	return joined
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
		Long: `mlfnode runs an unmodified command-line program over a grid of parameters, on this machine or a cluster,
and loses nothing: kill it, pull the plug, go on.`,
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
	f.StringVar(&a.master, "master", os.Getenv("MLF_MASTER"), "talk to the cluster of this master, HOST or HOST:PORT (default the cluster that you joined or chose)")
	f.Lookup("master").DefValue = ""
	f.BoolVar(&a.local, "local", false, "use this machine alone, whatever cluster it is in")
	f.BoolVar(&a.noColor, "no-color", false, "no colours; the environment variable NO_COLOR does the same")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what the node does")
	root.SetFlagErrorFunc(badFlag)
	for _, g := range []cobra.Group{
		{ID: groupSweeps, Title: "Sweeps:"}, {ID: groupResults, Title: "Results:"},
		{ID: groupProjects, Title: "Projects:"}, {ID: groupCluster, Title: "Cluster:"}, {ID: groupOther, Title: "Other:"},
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
	root.AddCommand(hostCommand(a), a.keeperCommand(), a.reapCommand(), a.provisionCommand())
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	return root
}

// settings loads the configuration, with the global flags over it.
func (c *connector) settings() (node.Config, error) {
	cfg, err := node.LoadConfig(c.configFile())
	if err != nil {
		return cfg, usage(err.Error(), "the node.yaml that comes with mlfnode explains every setting")
	}
	if c.state != "" {
		if cfg.StateDir, err = node.StatePath(c.state); err != nil {
			return cfg, usage("--state-dir: "+err.Error(), "")
		}
	}
	if nested := nestedState(); c.local && c.state == "" && nested != "" {
		cfg.StateDir = nested
		if err := cfg.WithinTrial(); err != nil {
			return cfg, usage(err.Error(), "leave these variables as the trial's node has set them")
		}
	} else if c.local && node.RoleOf(cfg.StateDir) != "" {
		cfg.StateDir = filepath.Join(cfg.StateDir, "local") // the folder itself is the cluster's
	}
	cfg.Version = version().Version
	level := slog.LevelWarn
	if c.verbose {
		level = slog.LevelDebug
	}
	cfg.Logger = slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))
	return cfg, nil
}

// configFile is the settings file that was named; else, for a program that up has put into its folder on a machine, the node.yaml
// of the node there: ROOT/node.yaml for ROOT/bin/mlfnode. "" is for the usual places.
func (c *connector) configFile() string {
	if c.config != "" || c.state != "" || os.Getenv("MLF_CONFIG") != "" || os.Getenv("MLF_STATE") != "" {
		return c.config
	}
	self, err := os.Executable()
	if err != nil || filepath.Base(filepath.Dir(self)) != "bin" {
		return ""
	}
	file := filepath.Join(filepath.Dir(filepath.Dir(self)), "node.yaml")
	if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), bootstrap.NodeHeading) {
		return "" // it is somebody else's, as in a source tree
	}
	return file
}

// colours reports whether w is a terminal that may be coloured.
func (ui *console) colours(w io.Writer) bool {
	return !ui.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

func (ui *console) say(format string, v ...any) { fmt.Fprintf(ui.stderr, format+"\n", v...) }

func (ui *console) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&ui.json, "json", false, "print JSON")
}

// hideDefault keeps a default out of the help that only stands for "not given".
func hideDefault(f *pflag.FlagSet, name string) { f.Lookup(name).DefValue = "0" }

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
	"mlfnode/node/service"
)

func masterCommand(a *app) *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use: "master", Short: "Run this node as the master of a cluster, in the foreground", Args: noArgument,
		Long: `Run this node as the master of a cluster, in the foreground. The first start creates the cluster.

Other machines join with the line that "mlfnode token" prints. Sweeps can be submitted from any of
them, or from here.`,
		Example: `  mlfnode master
  mlfnode master --advertise 10.0.0.5 --no-worker`,
		RunE: func(c *cobra.Command, _ []string) error {
			return runNode(c.Context(), a, &f, node.OpenMaster)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&f.noWorker, "no-worker", false, "run no trials here")
	return c
}

func joinCommand(a *app) *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use: "join", Short: "Join a cluster and run its trials, in the foreground", Args: noArgument,
		Long: `Join a cluster and run its trials, in the foreground.

The token is what "mlfnode token" prints on the master. It is read from MLF_CLUSTER_TOKEN or
--token-file, or typed on the terminal; a node that has joined no longer needs one.`,
		Example: `  mlfnode join --seed hostA
  mlfnode join --seed 10.0.0.5:7420 --node gpu3 --token-file token.txt`,
		RunE: func(c *cobra.Command, _ []string) error { return runJoin(c.Context(), a, &f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.seed, "seed", "", "the master: HOST or HOST:PORT of its API")
	c.Flags().StringVar(&f.node, "node", "", "name of this node (default the host name)")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "file with the token; - is standard input")
	return c
}

// nodeFlags are the flags of master and join.
type nodeFlags struct {
	advertise string
	noWorker  bool
	seed      string
	node      string
	tokenFile string
}

func (f *nodeFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.advertise, "advertise", "",
		"IP address at which other nodes reach this one (default: chosen by the route to the seed)")
}

// nodeSettings loads the settings of a node that runs in the foreground and applies the flags.
func nodeSettings(a *app, f *nodeFlags) (config.Config, error) {
	cfg, err := a.settings()
	if err != nil {
		return cfg, err
	}
	if !a.verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	for _, err := range []error{cfg.SetAdvertise(f.advertise), cfg.SetNode(f.node)} {
		if err != nil {
			return cfg, usage(err.Error(), "mlfnode join --help")
		}
	}
	if f.seed != "" {
		cfg.Cluster.Seed = f.seed
	}
	cfg.Cluster.Worker = cfg.Cluster.Worker && !f.noWorker
	return cfg, makeStateFolder(a.console, cfg.StateDir)
}

func runJoin(ctx context.Context, a *app, f *nodeFlags) error {
	cfg, err := nodeSettings(a, f)
	if err != nil {
		return err
	}
	name, joined, err := membership.Joined(cfg.StateDir)
	if err != nil {
		return err
	}
	if joined && f.node != "" && string(name) != f.node {
		return usage(fmt.Sprintf("this machine joined as %q", name), "leave --node out, or use another --state-dir")
	}
	again := membership.Refused(cfg.StateDir) && (f.tokenFile != "" || os.Getenv(membership.TokenVariable) != "")
	if !joined || again {
		if _, err := joinCluster(ctx, a.console, cfg, f); err != nil {
			return err
		}
	}
	// Programs of trials must not see the token in their environment.
	if err := os.Unsetenv(membership.TokenVariable); err != nil {
		return err
	}
	return runNode(ctx, a, f, node.OpenWorker)
}

// joinCluster makes this machine a node of the cluster and saves the user's access to it in the
// file that it returns.
func joinCluster(ctx context.Context, ui *console, cfg config.Config, f *nodeFlags) (access string, err error) {
	if cfg.Cluster.Seed == "" {
		return "", usage("join needs the address of the master", "mlfnode join --seed HOST")
	}
	if _, err := api.WithPort(cfg.Cluster.Seed, cfg.Cluster.Ports.API); err != nil {
		return "", usage(err.Error(), "mlfnode join --seed HOST")
	}
	token, err := readToken(ctx, ui, f.tokenFile)
	if err != nil {
		return "", err
	}
	contact, err := node.Join(ctx, cfg, cfg.Cluster.Seed, token)
	if errors.Is(err, node.ErrInUse) {
		return "", failed(fmt.Sprintf("another mlfnode is running with the state folder %s", cfg.StateDir),
			"stop it, or choose another folder with --state-dir")
	}
	if err != nil {
		return "", err
	}
	if contact.Token == "" {
		return "", nil
	}
	kept, err := node.SaveContext(contact)
	if err != nil {
		ui.say("mlfnode: your access could not be saved, so your commands do not reach the cluster yet: %v", err)
		return "", nil
	}
	noteKeptContext(ui, kept)
	return node.ContextFile()
}

// runNode runs a node until a signal ends it; a second signal kills the programs. SIGHUP rereads
// node.yaml, unless the terminal is gone. SIGUSR2 ends only the agent: another one follows in a
// moment and takes over its trials. The same holds if the agent ends by itself: trials end only if
// somebody asked for that.
func runNode(
	ctx context.Context, a *app, f *nodeFlags, open func(context.Context, config.Config) (*node.Node, error),
) error {
	cfg, err := nodeSettings(a, f)
	if err != nil {
		return err
	}
	signals, release := a.interrupts.capture(syscall.SIGUSR2)
	defer release()
	var ttys terminals
	for _, fd := range []int{0, 2} {
		if term.IsTerminal(fd) {
			ttys = append(ttys, fd)
		}
	}
	n, err := open(ctx, cfg)
	if errors.Is(err, node.ErrInUse) {
		return failed(fmt.Sprintf("another mlfnode is running with the state folder %s", cfg.StateDir),
			"stop it, or choose another folder with --state-dir")
	}
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	var signs sync.WaitGroup
	defer signs.Wait() // no notification of the stop may outlive this function
	defer close(stopped)
	defer n.Close()
	cfg.Logger.Info("node is up", "node", n.Name(), "address", n.Address(), "state", cfg.StateDir, "version",
		cfg.Version)
	notifier := service.Notifier{}
	a.warn(notifier.Ready("node " + string(n.Name()) + " at " + n.Address()))
	watched, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { a.warn(notifier.Run(watched, n.Healthy)) }()
	for {
		select {
		case err := <-n.Failed():
			return err
		case sig := <-signals:
			if sig == syscall.SIGHUP && !ttys.hungUp() {
				a.warn(notifier.Reloading())
				a.warn(notifier.Ready(rereadSettings(a, n, f)))
				continue
			}
			replaced := sig == syscall.SIGUSR2 || sig == syscall.SIGTERM &&
				service.Restarting(context.WithoutCancel(ctx))
			if !replaced {
				n.Stop()
				go forceStop(a, n, signals, stopped)
			}
			cfg.Logger.Info("node is stopping", "signal", sig.String())
			a.warn(notifier.Stopping("the node is stopping"))
			if !replaced {
				signs.Go(func() { n.SignStop(stopped, notifier.ExtendTimeout) })
			}
			return nil
		}
	}
}

// rereadSettings rereads node.yaml and returns the status to show. Errors in it are logged, and the
// node continues unchanged.
func rereadSettings(a *app, n *node.Node, f *nodeFlags) (status string) {
	cfg, err := nodeSettings(a, f)
	if err != nil {
		slog.New(slog.NewTextHandler(a.stderr, nil)).Error("node.yaml was not applied", "err", err)
		return "node.yaml has errors and was not applied; the log says why"
	}
	n.Reload(cfg)
	return "node.yaml was reloaded"
}

// forceStop handles further signals while the node stops: the first one kills its programs, the
// next one ends this process.
func forceStop(a *app, n *node.Node, signals <-chan os.Signal, stopped <-chan struct{}) {
	for insisted := false; ; {
		var sig os.Signal
		select {
		case sig = <-signals:
		case <-stopped:
			return
		}
		switch {
		case sig != os.Interrupt && sig != syscall.SIGTERM:
		case !insisted:
			insisted = true
			a.say("mlfnode: killing programs; press Ctrl-C again to end this process without waiting for them")
			n.Hurry()
		default:
			a.interrupts.raise(sig)
		}
	}
}

// terminals are the file descriptors of the process's input and output that are terminals.
type terminals []int

// hungUp reports whether one of them was hung up.
func (t terminals) hungUp() bool {
	return slices.ContainsFunc(t, func(fd int) bool { return !term.IsTerminal(fd) })
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
	"mlfnode/grid/command"
	"mlfnode/grid/printable"
	"mlfnode/node"
)

// clusterFlags are the flags of commands that act on a whole cluster over ssh.
type clusterFlags struct {
	file      string
	key       string // for gpu-setup, which has no cluster.yaml
	acceptNew bool
	dryRun    bool
	take      bool
	tokenFile string
	letters   map[string]*string
}

func (r *clusterFlags) add(ui *console, c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&r.file, "file", "f", "", "read the cluster from this `FILE`")
	f.Lookup("file").NoOptDefVal = bootstrap.DefaultFile
	f.BoolVar(&r.acceptNew, "accept-new", false,
		"trust hosts that ~/.ssh/known_hosts does not know; changed keys are still refused")
	ui.jsonFlag(c)
}

// cluster loads and validates the file that the commands after up act on.
func (r *clusterFlags) cluster() (*bootstrap.Cluster, error) {
	r.file = cmp.Or(r.file, bootstrap.DefaultFile)
	c, err := r.load()
	if err != nil {
		return nil, err
	}
	return c, explainCluster(c.Validate())
}

// load reads the file without validating it: flags of up may complete it.
func (r *clusterFlags) load() (*bootstrap.Cluster, error) {
	c, err := bootstrap.Load(r.file)
	if errors.Is(err, bootstrap.ErrNoFile) {
		return nil, usage(fmt.Sprintf("there is no %s in this folder", r.file),
			"mlfnode up -a HOST,HOST -m 1 -w 2 makes one; or name another with -f FILE")
	}
	return c, explainCluster(err)
}

func explainCluster(err error) error {
	if err == nil {
		return nil
	}
	return usage(err.Error(), "mlfnode up --help")
}

// sshOptions returns the options for acting on the machines of a cluster over ssh. done releases
// what they hold.
func sshOptions(
	ui *console, r *clusterFlags, cluster *bootstrap.Cluster,
) (o bootstrap.Options, done func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return o, nil, fmt.Errorf("find this program: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return o, nil, fmt.Errorf("find this machine's name: %w", err)
	}
	view := &clusterView{w: ui.stderr, terminal: isTerminal(ui.stderr)}
	d, err := shell.NewDialer(shell.Options{
		Key: expandHome(cluster.Key), AcceptNew: r.acceptNew, Prompt: newPrompter(ui, view),
	})
	if err != nil {
		return o, nil, explainProblem(err)
	}
	o = bootstrap.Options{
		Cluster: cluster, Builds: bootstrap.NewBuilds(self), LocalName: host, DryRun: r.dryRun,
		OnEvent: view.showEvent, ConfirmLosses: (&prompter{ui, view}).confirmLosses,
		Dial: func(ctx context.Context, address string) (shell.Machine, string, error) {
			if address == bootstrap.LocalAddress {
				return shell.Local{}, "", nil
			}
			t, err := shell.ParseTarget(address)
			if err != nil {
				return nil, "", err
			}
			m, err := d.Dial(ctx, t)
			if err != nil {
				return nil, "", err // not a nil *Connection in an interface
			}
			return m, d.Address(t), nil
		},
	}
	return o, func() { d.Close() }, nil
}

// expandHome expands ~/, which a shell does not do in a file.
func expandHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	home, err := os.UserHomeDir()
	if !ok || err != nil {
		return path
	}
	return filepath.Join(home, rest)
}

// clusterAction does something on the machines of a cluster; args are the arguments of the command.
type clusterAction func(ctx context.Context, o bootstrap.Options, args []string) ([]bootstrap.Outcome, error)

// clusterCommand makes c act on all machines of the cluster in cluster.yaml.
func clusterCommand(ui *console, c *cobra.Command, act clusterAction) *cobra.Command {
	r := &clusterFlags{}
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
		left := cluster.Removed(applied)
		if c.Name() == "down" {
			cluster.Hosts, left = append(cluster.Hosts, left...), nil
		}
		o, done, err := sshOptions(ui, r, cluster)
		if err != nil {
			return err
		}
		defer done()
		if c.Name() == "down" {
			o.Applied, o.SaveApplied = applied, func(c *bootstrap.Cluster) error {
				return bootstrap.SaveApplied(r.file, c)
			}
		}
		all, err := act(c.Context(), o, args)
		if err != nil {
			return explainProblem(err)
		}
		if c.Name() == "status" {
			markStopped(all, r.file)
		}
		for i := range left {
			ui.say("%s was brought up before and is no longer in %s; mlfnode up -f stops it, or: mlfnode down %[1]s",
				left[i].Name, r.file)
		}
		return reportOutcomes(c.Context(), ui, all, began, c.Name() == "status")
	}
	return c
}

func downCommand(ui *console) *cobra.Command {
	var order bootstrap.DownOptions
	c := &cobra.Command{
		Use: "down [HOST…]", Short: "Stop everything that up has started", Args: cobra.ArbitraryArgs,
		Long: `down stops the nodes on the machines of cluster.yaml, or on those that you name, and verifies that
no process, unit or port is left. Running trials get the grace period of their tasks to end, and
what they saved is stored: down waits for that, at most 12 minutes. It says how many trials were
running; they run again on the remaining nodes, or when the cluster is up again. A machine that
can't be reached does not keep the others from stopping; run down again for that one.

Sweeps, results and all other files stay on the machines, and mlfnode up -f brings the cluster back
with them. Until then your commands still go to this cluster, and report that it is down.

--purge removes what mlfnode has put into the folder on each machine, and nothing else. It asks
before it removes results; in a script, --yes agrees.`,
		Example: `  mlfnode down
  mlfnode down hostB
  mlfnode down --purge`,
	}
	c.Flags().BoolVar(&order.Purge, "purge", false,
		"also remove what mlfnode keeps on each machine, all results included")
	c.Flags().BoolVarP(&order.Yes, "yes", "y", false, "with --purge: do not ask before results are removed")
	return clusterCommand(ui, c, func(ctx context.Context, o bootstrap.Options,
		args []string) ([]bootstrap.Outcome, error) {
		order.Hosts = args
		all, err := bootstrap.Down(ctx, o, order)
		ui.warn(recordDown(ctx, all, order.Purge, cmp.Or(c.Flag("file").Value.String(), bootstrap.DefaultFile)))
		return all, err
	})
}

func pushCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "push", Short: "Copy the project's changed files to all machines",
		Long: `push copies the new and changed files of the cluster's project (-d of up) to the folder "projects"
on each machine, and removes files of an earlier push that are gone here. It touches nothing else.
Sweeps do not need it, since they take their files along: it is for people who log in there and
submit sweeps, or try out the program, on the machines themselves.`,
		Example: "  mlfnode push",
	}
	return clusterCommand(a.console, c,
		func(ctx context.Context, o bootstrap.Options, _ []string) (all []bootstrap.Outcome, err error) {
			if o.Cluster.Project == "" {
				return nil, usage("the cluster has no project",
					"write `project: NAME` into cluster.yaml, or: mlfnode up -f -d NAME")
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
		Use: "restart [HOST…]", Short: "Restart nodes with this program and cluster.yaml, one at a time",
		Args: cobra.ArbitraryArgs,
		Long: `restart installs this program and the settings of cluster.yaml on the machines and restarts their
nodes, one at a time, the master last. Running trials continue. It stops at the first node that does
not come back.`,
		Example: `  mlfnode restart
  mlfnode restart hostB`,
	}
	return clusterCommand(ui, c, bootstrap.Restart)
}

func statusCommand(ui *console) *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show the machines of the cluster, their services and what is wrong",
		Example: `  mlfnode status
  mlfnode status --json`,
	}
	return clusterCommand(ui, c, func(ctx context.Context, o bootstrap.Options,
		_ []string) ([]bootstrap.Outcome, error) {
		return bootstrap.Status(ctx, o), nil
	})
}

func moveMasterCommand(a *app) *cobra.Command {
	r := &clusterFlags{}
	c := &cobra.Command{
		Use: "move-master HOST", Short: "Move the master to another machine of the cluster", Args: oneArgument,
		Long: `move-master stops the nodes on the master's machine and on HOST, one of the machines in
cluster.yaml, copies everything that the master has to HOST, writes the new roles to cluster.yaml,
and brings the cluster up. HOST keeps its other role, and so does the machine that was the master,
where a copy of the state stays until you remove it. Trials on other machines continue; those on the
two machines get the grace period of their tasks to end, and run again. If the copy fails,
mlfnode up -f brings the cluster up as it was. If the command is interrupted, run it again: until
the roles are written, up -f refuses to start half of a move; after that, up -f completes it.`,
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
		all, err := bootstrap.MoveMaster(c.Context(), o, args[0], func(c *bootstrap.Cluster) error {
			return bootstrap.Save(r.file, c)
		})
		if err != nil {
			return explainProblem(err)
		}
		return reportOutcomes(c.Context(), a.console, all, began, false)
	}
	return c
}

// markStopped marks the machines of a cluster that this user has taken down, and that nobody has
// brought up since, as stopped, and since when. file describes the cluster.
func markStopped(all []bootstrap.Outcome, file string) {
	contexts, err := node.Contexts()
	if err != nil {
		return // each command that needs the contexts reports it
	}
	i := slices.IndexFunc(contexts, func(k node.KnownContext) bool {
		return k.Down != nil && k.Down.File == absolute(file)
	})
	if i < 0 || slices.ContainsFunc(all, func(o bootstrap.Outcome) bool {
		return o.Observed != nil && (o.Observed.Active || o.Observed.Service != "")
	}) {
		return
	}
	for j := range all {
		if o := &all[j]; o.Problem != nil && o.Observed != nil && o.Problem.Cure == bootstrap.CureStart {
			o.StoppedAt = &contexts[i].Down.At
			o.Problem.Cause = "the node is not running, because the cluster was taken down on " +
				dayAndTime(*o.StoppedAt)
			if file != bootstrap.DefaultFile {
				o.Problem.Cure += " " + command.Quote(file)
			}
		}
	}
}

// reportOutcomes prints what was done on each machine, and fails if one of them has a problem.
func reportOutcomes(ctx context.Context, ui *console, all []bootstrap.Outcome, began time.Time, status bool) error {
	if ctx.Err() != nil {
		ui.say("interrupted; run the same command again to continue, or mlfnode down to undo what was done")
		return ctx.Err()
	}
	ill := 0
	for i := range all {
		if !all[i].OK {
			ill++
		}
	}
	var err error
	switch {
	case ui.json:
		err = ui.printJSON(map[string]any{"hosts": all, "ok": ill == 0, "took_ns": time.Since(began)})
	case status:
		err = printStatus(ui, all)
	default:
		err = printOutcomes(ui, all)
	}
	if err == nil && ill > 0 {
		err = &failure{code: exitFailed}
	}
	return err
}

func printOutcomes(ui *console, all []bootstrap.Outcome) error {
	t := newTextTable(ui.stdout, "host", "address", "roles", "service", "state")
	for i := range all {
		o := &all[i]
		state := "unchanged"
		switch {
		case !o.OK:
			state = "FAILED"
		case len(o.Changed) > 0:
			state = strings.Join(o.Changed, ", ")
		}
		t.row(o.Host, o.Address, rolesText(o.Roles), o.Service, state)
	}
	if err := t.flush(); err != nil {
		return err
	}
	printNotes(ui, all)
	return nil
}

// printStatus prints a line for each machine as it was found.
func printStatus(ui *console, all []bootstrap.Outcome) error {
	t := newTextTable(ui.stdout, "host", "address", "roles", "service", "member", "version", "gpus", "state")
	start := ""
	for i := range all {
		o := &all[i]
		seen, gpus := &protocol.Observed{}, ""
		if o.Observed != nil {
			seen = o.Observed
		}
		if o.Facts != nil {
			gpus = fmt.Sprint(o.Facts.GPUs)
		}
		state := "FAILED"
		switch {
		case o.StoppedAt != nil:
			state, start = "stopped since "+dayAndTime(*o.StoppedAt), o.Problem.Cure
		case o.OK && seen.Stale:
			state = "working; the program or its settings have changed since it started"
		case o.OK && seen.Working:
			state = "working"
		case o.OK:
			state = "runs nothing"
		}
		t.row(o.Host, o.Address, rolesText(o.Roles), o.Service, o.MemberState, seen.Running, gpus, state)
	}
	if err := t.flush(); err != nil {
		return err
	}
	printNotes(ui, all)
	if start != "" {
		ui.say("the cluster was taken down, and keeps its sweeps and results; start it with: %s", start)
	}
	return nil
}

// printNotes prints what a person should know and fix: of each machine, then of the cluster.
func printNotes(ui *console, all []bootstrap.Outcome) {
	for i := range all {
		o := &all[i]
		for _, n := range o.Notes {
			ui.say("%s: note: %s", o.Host, oneLine(n))
		}
		if o.Problem != nil && o.StoppedAt == nil {
			printProblem(ui, o.Host, o.Problem)
		}
	}
	for i := range all {
		for _, n := range all[i].Cluster {
			ui.say("note: %s", oneLine(n))
		}
	}
}

func rolesText(roles []grid.NodeRole) string {
	var words []string
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ",")
}

// printProblem prints a problem in the form of an error. A cause may have several lines, such as
// those of a log.
func printProblem(ui *console, host string, p *shell.Problem) {
	ui.say("%s: %s", host, strings.ReplaceAll(printable.Text(p.Cause, longestMessage), "\n", "\n  "))
	if p.Cure != "" {
		ui.say("  try: %s", oneLine(p.Cure))
	}
}

// explainProblem turns a problem into a failure with its hint.
func explainProblem(err error) error {
	var p *shell.Problem
	if errors.As(err, &p) {
		return failed(p.Cause, p.Cure)
	}
	return err
}

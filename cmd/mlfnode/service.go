package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlfnode/grid"
	"mlfnode/node/config"
	"mlfnode/node/membership"
	"mlfnode/node/service"
)

func serviceCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "service", Short: "Install, remove or show the service of this machine's node", Args: unknownCommand,
		Long: `service runs this machine's node as a service of systemd: it starts with the machine, is restarted
whenever it ends, and running trials continue across a restart.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(withRunAs(a.console, serviceInstallCommand(a)),
		withRunAs(a.console, serviceUninstallCommand(a.console)),
		withRunAs(a.console, serviceStatusCommand(a.console)))
	return c
}

func userFlag(c *cobra.Command, h *service.Manager) {
	c.Flags().BoolVar(&h.User, "user", false, "as a service of this user; does not need root")
}

func serviceInstallCommand(a *app) *cobra.Command {
	var o service.Options
	var tokenFile string
	role := string(grid.Worker)
	c := &cobra.Command{
		Use: "install", Short: "Install and start the service, or bring it up to date", Args: noArgument,
		Long: `install writes the unit mlfnode.service, enables and starts it, and waits until the node is ready. A
missing node.yaml is created; an existing one is left as it is. A worker that has not joined a
cluster joins now, with the token in MLF_CLUSTER_TOKEN, in --token-file or typed on the terminal.
Installing again brings everything up to date, while running trials continue.

A system service runs as root, and so do the trials of everybody who may submit sweeps. With
--run-as USER, root installs a service of that user instead, which starts with the machine as well.`,
		Example: `  mlfnode service install --role master
  mlfnode service install --seed hostA --token-file token.txt
  mlfnode service install --run-as ada --seed hostA
  mlfnode service install --user --seed hostA --no-start`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Role = grid.NodeRole(role); o.Role != grid.Master && o.Role != grid.Worker {
				return usage(fmt.Sprintf("there is no role %q", role), "--role master or --role worker")
			}
			if o.Role == grid.Master && o.Seed != "" {
				return usage("a master joins no other node, and --seed names the one to join",
					"leave out --seed, or --role worker")
			}
			o.ConfigFile, o.StateDir = a.config, a.state
			o.Join = func(ctx context.Context, configFile, state string) (string, error) {
				return joinForService(ctx, a.console, configFile, state, o.Seed, tokenFile)
			}
			r, err := service.Install(c.Context(), o)
			printInstallReport(a.console, r)
			return explainService(err, o)
		},
	}
	userFlag(c, &o.Manager)
	c.Flags().StringVar(&role, "role", role, "master or worker")
	c.Flags().StringVar(&o.Seed, "seed", "", "the master that a worker joins, as `HOST` or HOST:PORT")
	c.Flags().StringVar(&tokenFile, "token-file", "",
		"file with the token of a worker that has not joined yet; - is standard input")
	c.Flags().BoolVar(&o.NoStart, "no-start", false, "install without starting it; it starts when the machine boots")
	return c
}

// joinForService makes the machine a node that the service then runs, and returns the file with the
// user's access to the cluster.
func joinForService(
	ctx context.Context, ui *console, configFile, state, seed, tokenFile string,
) (access string, err error) {
	cfg, err := config.Load(configFile)
	if err != nil {
		return "", err
	}
	cfg.StateDir = state
	if seed != "" {
		cfg.Cluster.Seed = seed
	}
	if err := makeStateFolder(ui, state); err != nil {
		return "", err
	}
	return joinCluster(ctx, ui, cfg, &nodeFlags{tokenFile: tokenFile})
}

func printInstallReport(ui *console, r service.Report) {
	if r.Unit == "" {
		return
	}
	fmt.Fprintf(ui.stdout, "unit      %s\nprogram   %s\nsettings  %s\nstate     %s\n", r.Unit, r.Program, r.Config,
		r.State)
	if r.Started {
		fmt.Fprintln(ui.stdout, "the service is active")
	}
	for _, n := range r.Notes {
		ui.say("note: %s", n)
	}
}

// explainService turns an error about a service into a failure with a hint.
func explainService(err error, o service.Options) error {
	var start *service.StartError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, service.ErrNoSystemd):
		var args []string
		if o.Seed != "" {
			args = []string{"--seed", o.Seed}
		}
		return failed(err.Error(), service.WithoutSystemd(o.Role, args...))
	case errors.As(err, &start):
		return failed(start.Error(),
			"fix the cause, and systemd will start it; or: mlfnode service uninstall"+userSuffix(o.User))
	case errors.Is(err, fs.ErrPermission) && !o.User:
		return failed(err.Error(), "the same command with sudo, or with --user for a service of your own")
	}
	return err
}

func userSuffix(user bool) string {
	if user {
		return " --user"
	}
	return ""
}

func serviceUninstallCommand(ui *console) *cobra.Command {
	var h service.Manager
	purge := false
	c := &cobra.Command{
		Use: "uninstall", Short: "Stop the service and remove what install created", Args: noArgument,
		Long: `uninstall stops the service and the trials of this node, and removes everything that install
created. What the node has stored, and settings that were changed, stay unless --purge is given.`,
		Example: `  mlfnode service uninstall
  mlfnode service uninstall --purge`,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := service.Uninstall(c.Context(), h, purge)
			for _, path := range r.Removed {
				fmt.Fprintln(ui.stdout, "removed", path)
			}
			for _, what := range r.Kept {
				fmt.Fprintln(ui.stdout, "kept   ", what)
			}
			if err == nil && len(r.Removed)+len(r.Kept) == 0 {
				fmt.Fprintln(ui.stdout, "no service is installed")
			}
			return explainService(err, service.Options{Manager: h, Role: grid.Worker})
		},
	}
	userFlag(c, &h)
	c.Flags().BoolVar(&purge, "purge", false, "also remove the state folder and changed settings")
	return c
}

func serviceStatusCommand(ui *console) *cobra.Command {
	var h service.Manager
	c := &cobra.Command{
		Use: "status", Short: "Show the service", Args: noArgument, Example: "  mlfnode service status --json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := service.Status(c.Context(), h)
			if err != nil {
				return explainService(err, service.Options{Manager: h, Role: grid.Worker})
			}
			return printService(ui, s, userSuffix(s.User))
		},
	}
	userFlag(c, &h)
	ui.jsonFlag(c)
	return c
}

// printService prints a service, or, if there is none, the command with the flag owner that
// installs one.
func printService(ui *console, s service.State, owner string) error {
	switch {
	case ui.json:
		return json.NewEncoder(ui.stdout).Encode(s)
	case !s.Installed:
		fmt.Fprintf(ui.stdout, "no service is installed; install one with: mlfnode service install%s\n", owner)
		return nil
	}
	enabled := map[bool]string{true: "enabled", false: "disabled"}[s.Enabled]
	if s.User && !s.Linger {
		enabled += ", only while its user is logged in"
	}
	lines := [][2]string{
		{"unit", s.File + " (" + enabled + ")"}, {"runs", s.Program},
		{"state", s.Active + " (" + s.Detail + ")"}, {"since", s.Since},
		{"says", s.Text}, {"process", fmt.Sprint(s.PID)}, {"restarts", fmt.Sprint(s.Restarts)}, {"ended", s.Result},
		{"trials in", strings.Join(s.Shims, " ")},
	}
	for _, l := range lines {
		if l[1] == "" || (l[0] == "process" && s.PID == 0) || (l[0] == "ended" && s.Result == "success") {
			continue
		}
		fmt.Fprintf(ui.stdout, "%-10s%s\n", l[0], oneLine(l[1]))
	}
	return nil
}

// runAs is the flag of service commands that root may run for another user.
const runAs = "run-as"

// withRunAs adds the flag --run-as USER to a command about a service: the command is run as that
// user, for a service of theirs.
func withRunAs(ui *console, c *cobra.Command) *cobra.Command {
	c.Flags().String(runAs, "", "as a service of this `USER`, who also runs its trials; needs root")
	own := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		name := c.Flag(runAs).Value.String()
		if name == "" {
			return own(c, args)
		}
		return runAsUser(ui, c, name)
	}
	return c
}

// runAsUser runs a command line again as another user, with --user in place of --run-as.
func runAsUser(ui *console, c *cobra.Command, name string) error {
	args, err := userArgs(c)
	if err != nil {
		return err
	}
	token := os.Getenv(membership.TokenVariable)
	if f := c.Flag("token-file"); f != nil && f.Changed { // only root may be able to read the file
		if token, err = readTokenText(c.Context(), ui, f.Value.String()); err != nil {
			return err
		}
	}
	return runServiceCommand(ui, c, name, strings.TrimSpace(token), args)
}

// userArgs returns the arguments that run the same command as the user, with absolute paths, since
// it runs in a folder of theirs.
func userArgs(c *cobra.Command) ([]string, error) {
	args := append(strings.Fields(c.CommandPath())[1:], "--user")
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch f.Name {
		case runAs, "user", "token-file":
			return
		case "config", "state-dir":
			path, e := filepath.Abs(value)
			value, err = path, errors.Join(err, e)
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args, err
}

func runServiceCommand(ui *console, c *cobra.Command, name, token string, args []string) error {
	command, release, err := service.CommandAs(c.Context(), name, c.Name() == "install", args...)
	switch {
	case errors.Is(err, service.ErrNoService) && c.Name() == "status":
		return printService(ui, service.State{User: true, Shims: []string{}}, " --run-as "+name)
	case errors.Is(err, service.ErrNoService):
		fmt.Fprintln(ui.stdout, err)
		return nil
	case errors.Is(err, service.ErrNoSystemd):
		return failed(err.Error(), "su - "+name+", and there: mlfnode join or mlfnode master")
	case errors.Is(err, fs.ErrPermission):
		return failed("--run-as needs root", "the same command with sudo, or as "+name+" with --user")
	case err != nil:
		return err
	}
	defer release()
	if token != "" {
		command.Env = append(command.Env, membership.TokenVariable+"="+token)
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, ui.stdout, ui.stderr
	var exit *exec.ExitError
	if err := command.Run(); errors.As(err, &exit) {
		return &failure{code: max(exit.ExitCode(), exitFailed)} // the command has said why
	} else if err != nil {
		return failed("mlfnode can't be run as "+name+": "+err.Error(),
			"put it into /usr/local/bin, where everybody may run it")
	}
	return nil
}

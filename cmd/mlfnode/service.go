package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/node"
	"mlfnode/node/service"
)

func serviceCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "service", Short: "Install, remove or show the service of this machine's node", Args: unknownCommand,
		Long: `service runs this machine's node as a service of systemd: it starts with the machine, is restarted whenever it ends, and running
trials continue across a restart.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(withRunAs(a.console, serviceInstallCommand(a)), withRunAs(a.console, serviceUninstallCommand(a.console)), withRunAs(a.console, serviceStatusCommand(a.console)))
	return c
}

func userFlag(c *cobra.Command, h *service.Home) {
	c.Flags().BoolVar(&h.User, "user", false, "as a service of this user; needs no root")
}

func serviceInstallCommand(a *app) *cobra.Command {
	var o service.Options
	var tokenFile string
	role := string(service.Worker)
	c := &cobra.Command{
		Use: "install", Short: "Install and start the service, or bring it up to date", Args: noArgument,
		Long: `install writes the unit mlfnode.service, enables and starts it, and waits until the node is ready. A missing node.yaml is created; an
existing one is left as it is. A worker that has not joined a cluster joins now, with the token in MLF_CLUSTER_TOKEN, in --token-file or
typed on the terminal. Installing again brings everything up to date, while running trials continue.

A system service runs as root, and so do the trials of everybody who may submit sweeps. With --run-as USER, root installs a service of
that user instead, which starts with the machine as well.`,
		Example: "  mlfnode service install --role master\n  mlfnode service install --seed hostA --token-file token.txt\n  mlfnode service install --run-as ada --seed hostA\n  mlfnode service install --user --seed hostA --no-start",
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Role = service.Role(role); o.Role != service.Master && o.Role != service.Worker {
				return usage(fmt.Sprintf("there is no role %q", role), "--role master or --role worker")
			}
			if o.Role == service.Master && o.Seed != "" {
				return usage("a master joins no other node, and --seed names the one to join", "leave out --seed, or --role worker")
			}
			o.ConfigFile, o.StateDir = a.config, a.state
			o.Join = func(ctx context.Context, config, state string) (string, error) {
				return joinForService(ctx, a.console, config, state, o.Seed, tokenFile)
			}
			r, err := service.Install(c.Context(), o)
			printInstallReport(a.console, r)
			return explainService(err, o)
		},
	}
	userFlag(c, &o.Home)
	c.Flags().StringVar(&role, "role", role, "master or worker")
	c.Flags().StringVar(&o.Seed, "seed", "", "the master that a worker joins, as `HOST` or HOST:PORT")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the token of a worker that has not joined yet; - is standard input")
	c.Flags().BoolVar(&o.NoStart, "no-start", false, "install without starting; it starts with the machine")
	return c
}

// joinForService makes the machine a node that the service then runs, and names the file with the user's access to the cluster.
func joinForService(ctx context.Context, ui *console, config, state, seed, tokenFile string) (access string, err error) {
	cfg, err := node.LoadConfig(config)
	if err != nil {
		return "", err
	}
	cfg.StateDir = state
	if seed != "" {
		cfg.Cluster.Seed = seed
	}
	if err := makeState(ui, state); err != nil {
		return "", err
	}
	return joinCluster(ctx, ui, cfg, &nodeFlags{tokenFile: tokenFile})
}

func printInstallReport(ui *console, r service.Report) {
	if r.Unit == "" {
		return
	}
	fmt.Fprintf(ui.stdout, "unit      %s\nprogram   %s\nsettings  %s\nstate     %s\n", r.Unit, r.Program, r.Config, r.State)
	if r.Started {
		fmt.Fprintln(ui.stdout, "the service is active")
	}
	for _, n := range r.Notes {
		ui.say("note: %s", n)
	}
}

// explainService says what to try.
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
		return failed(start.Error(), "fix the cause, and systemd will start it; or: mlfnode service uninstall"+userSuffix(o.User))
	case errors.Is(err, fs.ErrPermission) && !o.User:
		return failed(err.Error(), "the same command with sudo, or with --user for a service of yours")
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
	var h service.Home
	purge := false
	c := &cobra.Command{
		Use: "uninstall", Short: "Stop the service and remove what install created", Args: noArgument,
		Long: `uninstall stops the service and the trials of this node, and removes everything that install created. What the node has stored, and
settings that were changed, stay unless --purge is given.`,
		Example: "  mlfnode service uninstall\n  mlfnode service uninstall --purge",
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
			return explainService(err, service.Options{Home: h, Role: service.Worker})
		},
	}
	userFlag(c, &h)
	c.Flags().BoolVar(&purge, "purge", false, "also remove the state folder and changed settings")
	return c
}

func serviceStatusCommand(ui *console) *cobra.Command {
	var h service.Home
	c := &cobra.Command{
		Use: "status", Short: "Show the service", Args: noArgument, Example: "  mlfnode service status --json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := service.Status(c.Context(), h)
			if err != nil {
				return explainService(err, service.Options{Home: h, Role: service.Worker})
			}
			return printService(ui, s, userSuffix(s.User))
		},
	}
	userFlag(c, &h)
	ui.jsonFlag(c)
	return c
}

// printService shows a service, or that there is none, and with which flag for its owner to install one.
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
		{"unit", s.File + " (" + enabled + ")"}, {"runs", s.Program}, {"state", s.Active + " (" + s.Detail + ")"}, {"since", s.Since},
		{"says", s.Text}, {"process", fmt.Sprint(s.PID)}, {"restarts", fmt.Sprint(s.Restarts)}, {"ended", s.Result},
		{"trials in", strings.Join(s.Keepers, " ")},
	}
	for _, l := range lines {
		if l[1] == "" || (l[0] == "process" && s.PID == 0) || (l[0] == "ended" && s.Result == "success") {
			continue
		}
		fmt.Fprintf(ui.stdout, "%-10s%s\n", l[0], oneLine(l[1]))
	}
	return nil
}

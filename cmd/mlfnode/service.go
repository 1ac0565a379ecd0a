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

func (a *app) serviceCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "service", Short: "Install, remove or show the service of this machine's node", Args: unknownCommand,
		Long: `service runs this machine's node as a service of systemd: it starts with the machine, is restarted whenever it ends, and running
trials continue across a restart.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.orAs(a.serviceInstallCommand()), a.orAs(a.serviceUninstallCommand()), a.orAs(a.serviceStatusCommand()))
	return c
}

func userFlag(c *cobra.Command, h *service.Home) {
	c.Flags().BoolVar(&h.User, "user", false, "as a service of this user; needs no root")
}

func (a *app) serviceInstallCommand() *cobra.Command {
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
				return a.joinFor(ctx, config, state, o.Seed, tokenFile)
			}
			r, err := service.Install(c.Context(), o)
			a.showReport(r)
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

// joinFor makes the machine a node that the service then runs, and names the file with the user's access to the cluster.
func (a *app) joinFor(ctx context.Context, config, state, seed, tokenFile string) (access string, err error) {
	cfg, err := node.LoadConfig(config)
	if err != nil {
		return "", err
	}
	cfg.StateDir = state
	if seed != "" {
		cfg.Cluster.Seed = seed
	}
	if err := a.makeState(state); err != nil {
		return "", err
	}
	return a.enter(ctx, cfg, &nodeFlags{tokenFile: tokenFile})
}

func (a *app) showReport(r service.Report) {
	if r.Unit == "" {
		return
	}
	fmt.Fprintf(a.stdout, "unit      %s\nprogram   %s\nsettings  %s\nstate     %s\n", r.Unit, r.Program, r.Config, r.State)
	if r.Started {
		fmt.Fprintln(a.stdout, "the service is active")
	}
	for _, n := range r.Notes {
		a.say("note: %s", n)
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

func (a *app) serviceUninstallCommand() *cobra.Command {
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
				fmt.Fprintln(a.stdout, "removed", path)
			}
			for _, what := range r.Kept {
				fmt.Fprintln(a.stdout, "kept   ", what)
			}
			if err == nil && len(r.Removed)+len(r.Kept) == 0 {
				fmt.Fprintln(a.stdout, "no service is installed")
			}
			return explainService(err, service.Options{Home: h, Role: service.Worker})
		},
	}
	userFlag(c, &h)
	c.Flags().BoolVar(&purge, "purge", false, "also remove the state folder and changed settings")
	return c
}

func (a *app) serviceStatusCommand() *cobra.Command {
	var h service.Home
	c := &cobra.Command{
		Use: "status", Short: "Show the service", Args: noArgument, Example: "  mlfnode service status --json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := service.Status(c.Context(), h)
			if err != nil {
				return explainService(err, service.Options{Home: h, Role: service.Worker})
			}
			return a.showService(s, userSuffix(s.User))
		},
	}
	userFlag(c, &h)
	a.jsonFlag(c)
	return c
}

// showService shows a service, or that there is none, and with which flag for its owner to install one.
func (a *app) showService(s service.State, owner string) error {
	switch {
	case a.json:
		return json.NewEncoder(a.stdout).Encode(s)
	case !s.Installed:
		fmt.Fprintf(a.stdout, "no service is installed; install one with: mlfnode service install%s\n", owner)
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
		fmt.Fprintf(a.stdout, "%-10s%s\n", l[0], oneLine(l[1]))
	}
	return nil
}

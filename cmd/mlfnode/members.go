package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

func membersCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "members", Short: "List the nodes of the cluster and their state", Args: noArgument,
		Long: `List the nodes of the cluster and their state, as this node sees them. This also works while the
master is down.`,
		Example: `  mlfnode members
  mlfnode members --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := clusterMembers(c.Context(), a)
			if err != nil {
				return err
			}
			return printMembers(a.console, all)
		},
	}
	a.jsonFlag(c)
	return c
}

// clusterMembers asks this machine's node, which knows the members even while the master is down,
// or else the master.
func clusterMembers(ctx context.Context, a *app) ([]api.Member, error) {
	s, err := a.nearestNode(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Client().Members().List(ctx)
}

func printMembers(ui *console, all []api.Member) error {
	if ui.json {
		return ui.printJSON(all)
	}
	head := []string{"node", "state", "roles", "cpus", "memory", "gpus", "running", "load", "address", "version"}
	labelled := slices.ContainsFunc(all, func(m api.Member) bool { return len(m.Labels) > 0 })
	if labelled {
		head = append(head, "labels")
	}
	t := newTable(ui.stdout, append(head, "")...)
	for i := range all {
		m := &all[i]
		state := m.State
		switch {
		case m.Quarantined:
			state += ", quarantined"
		case m.Drained:
			state += ", drained"
		}
		running, load := "", "" // unknown for a node that is not there
		if mayWork(m) {
			running, load = strconv.Itoa(m.Running), strconv.FormatFloat(m.Load, 'f', 1, 64)
		}
		row := []string{string(m.Node), state, strings.Join(m.Roles, ","),
			strconv.FormatFloat(m.CPUs, 'g', -1, 64), bytesText(m.Memory), strconv.Itoa(m.GPUs),
			running, load, m.Address, m.Version}
		if labelled {
			row = append(row, strings.Join(m.Labels, ","))
		}
		t.row(append(row, oneLine(m.Reason))...)
	}
	return t.flush()
}

// mayWork reports whether the node may be running trials.
func mayWork(m *api.Member) bool { return m.State == "alive" || m.State == "suspect" }

func drainCommand(a *app) *cobra.Command {
	var reason string
	wait := false
	c := &cobra.Command{
		Use:   "drain NODE",
		Short: "Start no more trials on a node; running ones finish, or move if they can (checkpoint)",
		Args:  oneArgument,
		Example: `  mlfnode drain hostB --reason "new disk"
  mlfnode drain hostB --wait && ssh hostB sudo reboot`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withMaster(c.Context(), func(s *node.Session) error {
				node := grid.NodeID(args[0])
				if err := drainNode(c.Context(), a.console, s.Client(), node, reason); err != nil || !wait {
					return err
				}
				return awaitIdle(c.Context(), a.console, s, node)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "the reason, which mlfnode members shows")
	c.Flags().BoolVar(&wait, "wait", false, "wait until nothing is running there")
	return c
}

// Trials of a node are counted every restInterval while drain waits for them. The node is idle once
// restCounts counts in a row have found none: the master hears a moment later of a trial that has
// just started, and gossip tells every 2 s how many run on a node.
const (
	restInterval = time.Second
	restCounts   = 5
)

// awaitIdle waits until no trial runs on a node, even if the master is restarted meanwhile.
func awaitIdle(ctx context.Context, ui *console, s *node.Session, node grid.NodeID) error {
	tick := time.NewTicker(restInterval)
	defer tick.Stop()
	warned := false
	for idle := 0; idle < restCounts; {
		rests, state, err := isIdle(ctx, s.Client(), node)
		switch {
		case errors.Is(err, api.ErrLost) && s.InCluster():
			if err := s.Await(ctx, func() { ui.say("%s", awaitingMaster) }); err != nil {
				return err
			}
		case err != nil:
			return err
		case !rests && (state == "" || state == "dead") && !warned:
			warned = true
			ui.say("the cluster can't reach %s, so what runs there is unknown; waiting for it", node)
		}
		if idle++; !rests {
			idle = 0
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	ui.say("nothing is running on %s any more", node)
	return nil
}

// isIdle reports whether no trial runs on a node, according to both the master and the node itself,
// and returns the state of the node among the members, "" if it is not one. A node that has left
// runs nothing.
func isIdle(ctx context.Context, client *api.Client, node grid.NodeID) (rests bool, state string, err error) {
	count, _, err := runningOn(ctx, client, node)
	if err != nil {
		return false, "", err
	}
	all, err := client.Members().List(ctx)
	if err != nil {
		return false, "", err
	}
	i := slices.IndexFunc(all, func(m api.Member) bool { return m.Node == node })
	if i < 0 {
		return false, "", nil
	}
	m := &all[i]
	return count == 0 && (m.State == "left" || m.State == "alive" && m.Running == 0), m.State, nil
}

// drainNode drains a node, and prints what still runs there.
func drainNode(ctx context.Context, ui *console, client *api.Client, node grid.NodeID, reason string) error {
	if err := client.Members().Drain(ctx, node, reason); err != nil {
		return err
	}
	count, names, err := runningOn(ctx, client, node)
	switch {
	case err != nil && ctx.Err() != nil: // the node is drained anyway
	case err != nil:
		ui.say("%s takes no more trials; what still runs there is unknown: %s", node, oneLine(err.Error()))
	case count == 0:
		ui.say("%s takes no more trials; no trial is known to be running there", node)
	default:
		if count > mostNamed {
			names = append(names, "…")
		}
		ui.say("%s takes no more trials; still running there: %s (%s)", node, plural(int64(count), "trial"),
			strings.Join(names, ", "))
	}
	return nil
}

// mostNamed bounds how many trials a message names.
const mostNamed = 10

// runningOn counts the trials that run on a node and names the first ones.
func runningOn(ctx context.Context, client *api.Client, node grid.NodeID) (count int, names []string, err error) {
	sweeps, err := client.Sweeps().List(ctx)
	if err != nil {
		return 0, nil, err
	}
	for i := range sweeps {
		if sweeps[i].Running == 0 {
			continue
		}
		for t, err := range client.Trials().List(ctx, sweeps[i].Sweep,
			api.TrialQuery{States: []grid.State{grid.Running}}) {
			if err != nil {
				return 0, nil, err
			}
			if t.Node != node {
				continue
			}
			if count++; count <= mostNamed {
				names = append(names, fmt.Sprintf("%s/%d", sweeps[i].Sweep, t.Index))
			}
		}
	}
	return count, names, nil
}

func undrainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "undrain NODE", Short: "Let a node that was drained or quarantined take trials again", Args: oneArgument,
		Example: "  mlfnode undrain hostB",
		RunE: func(c *cobra.Command, args []string) error {
			return a.callMaster(c.Context(), func(client *api.Client) error {
				return client.Members().Undrain(c.Context(), grid.NodeID(args[0]))
			})
		},
	}
}

func forgetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "forget NODE", Short: "Remove a node from the cluster for good, and revoke its credentials",
		Args:    oneArgument,
		Example: "  mlfnode forget hostB",
		RunE: func(c *cobra.Command, args []string) error {
			err := a.callMaster(c.Context(), func(client *api.Client) error {
				return client.Members().Forget(c.Context(), grid.NodeID(args[0]))
			})
			return noteNewKey(a.console, err)
		},
	}
}

// noteNewKey prints what a new gossip key means for backups, unless err is set, and returns err.
func noteNewKey(ui *console, err error) error {
	if err == nil {
		ui.say("the cluster has a new gossip key; if you keep backups, make a new one now: mlfnode backup FILE")
	}
	return err
}

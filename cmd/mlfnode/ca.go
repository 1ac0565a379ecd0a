package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
)

func caCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ca", Short: "Show or rotate the authority that certifies the nodes", Args: noArgument,
		Long: `Show the cluster's certificate authority (CA) and the nodes that have not followed the last step of
its rotation. A rotation has three steps, and the cluster works normally between them: rotate
creates a new CA, which nodes learn of within seconds and people with their next command; switch has
the new CA issue all certificates; retire stops trusting the old one. Run it on the master's
machine, or with an admin token.`,
		Example: `  mlfnode ca
  mlfnode ca rotate
  mlfnode ca switch
  mlfnode ca retire`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.callMaster(c.Context(), func(client *api.Client) error {
				s, err := client.Access().CA(c.Context())
				if err != nil {
					return err
				}
				return printCA(a.console, s)
			})
		},
	}
	a.jsonFlag(c)
	c.AddCommand(
		caStepCommand(a, "rotate", "Create a new authority and announce it to nodes and people", false),
		caStepCommand(a, "switch", "Have the new authority issue all certificates", true),
		caStepCommand(a, "retire", "Stop trusting the old authority", true))
	return c
}

func caStepCommand(a *app, step, short string, hasten bool) *cobra.Command {
	ask := api.CAStep{Step: step}
	c := &cobra.Command{
		Use: step, Short: short, Args: noArgument, Example: "  mlfnode ca " + step,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.callMaster(c.Context(), func(client *api.Client) error {
				s, err := client.Access().StepCA(c.Context(), ask)
				if err != nil {
					return err
				}
				return printCA(a.console, s)
			})
		},
	}
	if hasten {
		c.Flags().BoolVar(&ask.Now, "now", false,
			"leave behind nodes that have not followed the previous step; they need a token to join again")
	}
	a.jsonFlag(c)
	return c
}

func printCA(ui *console, s api.CA) error {
	if ui.json {
		return ui.printJSON(s)
	}
	lines, next := []string{"CA " + s.Pin + " certifies the nodes"}, ""
	switch s.Stage {
	case "announced":
		lines = append(lines, "CA "+s.Other+" is announced")
		next = "people learn of the new CA with their next command; " +
			"nodes that are away need a token unless they are back before: mlfnode ca switch"
	case "switched":
		lines = append(lines, "CA "+s.Other+" is still trusted")
		next = "end that with: mlfnode ca retire"
	}
	for _, list := range []struct {
		what  string
		nodes []grid.NodeID
	}{{"up", s.Behind}, {"away", s.Away}} {
		for _, node := range list.nodes {
			lines = append(lines, fmt.Sprintf("%s is %s and has not followed", node, list.what))
		}
	}
	if _, err := fmt.Fprintln(ui.stdout, strings.Join(lines, "\n")); err != nil {
		return err
	}
	if next != "" {
		ui.say("%s", next)
	}
	return nil
}

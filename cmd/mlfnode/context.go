package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/node"
)

func contextCommand(a *app) *cobra.Command {
	list := func(*cobra.Command, []string) error { return printContexts(a.console) }
	c := &cobra.Command{
		Use: "context", Short: "List the clusters that you have access to, or choose one", Args: unknownCommand,
		Long: `List the clusters that you have access to. Your commands go to the one marked with *. up, join and token use switch to their cluster,
and keep the others in the list.`,
		Example: "  mlfnode context\n  mlfnode context use hostA",
		RunE:    list,
	}
	show := &cobra.Command{Use: "list", Short: "List the clusters that you have access to", Args: noArgument, Example: "  mlfnode context list --json", RunE: list}
	a.jsonFlag(c)
	a.jsonFlag(show)
	use := &cobra.Command{
		Use: "use NAME", Short: "Use this cluster for your commands", Args: oneArgument,
		Long: `Use this cluster for your commands. NAME is its id in the list, or the host of its master. --master records a new address of its
master, as after a move.`,
		Example: "  mlfnode context use hostA\n  mlfnode context use 1a2b3c4d --master hostB",
		RunE: func(c *cobra.Command, args []string) error {
			master := ""
			if c.Flags().Changed("master") {
				master = a.master
			}
			return useContext(a.console, args[0], master)
		},
	}
	c.AddCommand(show, use)
	return c
}

// contextShown is a context without its secret.
type contextShown struct {
	ID      string    `json:"id"`
	Current bool      `json:"current"`
	Master  []string  `json:"master"`
	Role    string    `json:"role,omitempty"`
	Down    bool      `json:"down,omitempty"`
	Used    time.Time `json:"used"`
}

func printContexts(ui *console) error {
	known, err := node.Contexts()
	if err != nil {
		return err
	}
	all := []contextShown{}
	for i := range known {
		k := &known[i]
		all = append(all, contextShown{k.ID, k.Current, k.Master, string(k.Role), k.Down != nil, k.Used})
	}
	switch {
	case ui.json:
		return ui.printJSON(all)
	case len(all) == 0:
		ui.say("you have no access to any cluster; mlfnode up, join and token use give you access")
		return nil
	}
	t := newTable(ui.stdout, "", "id", "master", "role", "used")
	for _, c := range all {
		mark, master := "", c.Master[0]
		if c.Current {
			mark = "*"
		}
		if c.Down {
			master += " (down)"
		}
		t.row(mark, c.ID, master, c.Role, ago(c.Used))
	}
	return t.end()
}

func useContext(ui *console, name, master string) error {
	all, err := node.Contexts()
	if err != nil {
		return err
	}
	var found []*node.KnownContext
	for i := range all {
		if k := &all[i]; k.ID == name || slices.ContainsFunc(k.Master, func(address string) bool {
			host, _, _ := net.SplitHostPort(address)
			return address == name || host == name
		}) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return usage(fmt.Sprintf("you have no access to a cluster %q", name), "mlfnode context lists them")
	case 1:
	default:
		var ids []string
		for _, k := range found {
			ids = append(ids, k.ID)
		}
		return usage(fmt.Sprintf("%d clusters had their master at %s", len(found), name), "name one by its id: "+strings.Join(ids, ", "))
	}
	if err := found[0].Use(master); err != nil {
		return err
	}
	ui.say("commands now use the cluster at %s", found[0].Master[0])
	return nil
}

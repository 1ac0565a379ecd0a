package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
)

func contextCommand(a *app) *cobra.Command {
	list := func(*cobra.Command, []string) error { return printContexts(a.console) }
	c := &cobra.Command{
		Use: "context", Short: "List the clusters that you have access to, or choose one", Args: unknownCommand,
		Long: `List the clusters that you have access to. Your commands go to the one marked with *. up, join and
token use switch to their cluster, and keep the others in the list.`,
		Example: `  mlfnode context
  mlfnode context use hostA`,
		RunE: list,
	}
	show := &cobra.Command{Use: "list", Short: "List the clusters that you have access to", Args: noArgument,
		Example: "  mlfnode context list --json", RunE: list}
	a.jsonFlag(c)
	a.jsonFlag(show)
	use := &cobra.Command{
		Use: "use NAME", Short: "Use this cluster for your commands", Args: oneArgument,
		Long: `Use this cluster for your commands. NAME is its id in the list, or the host of its master. --master
records a new address of its master, as after a move.`,
		Example: `  mlfnode context use hostA
  mlfnode context use 1a2b3c4d --master hostB`,
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

// contextShown is a context as `context list --json` prints it, without its secret.
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
		t.row(mark, c.ID, master, c.Role, timeAgo(c.Used))
	}
	return t.flush()
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
		return usage(fmt.Sprintf("%d clusters had their master at %s", len(found), name),
			"name one by its id: "+strings.Join(ids, ", "))
	}
	if err := found[0].Use(master); err != nil {
		return err
	}
	ui.say("commands now use the cluster at %s", found[0].Master[0])
	return nil
}

// reachTimeout bounds an attempt to reach the master.
const reachTimeout = 5 * time.Second

// setUpAccess makes this user's commands go to the cluster that has come up, unless they do
// already.
func setUpAccess(ctx context.Context, ui *console, addresses []string, makeToken func() (string, error)) string {
	if known, was := hasAccess(ctx, addresses); known {
		if was {
			return "your commands go to this cluster again"
		}
		return ""
	}
	text, err := makeToken()
	if err != nil {
		return "your commands do not reach the cluster yet: " + err.Error()
	}
	token, err := trust.ParseToken(text)
	if err != nil {
		return "your commands do not reach the cluster yet: " + err.Error()
	}
	why := errors.New("it has no address")
	for _, address := range addresses {
		var c trust.Context
		if c, why = introduce(ctx, address, token); why == nil {
			c.Role = trust.RoleAdmin
			var kept string
			if kept, why = node.SaveContext(c); why == nil {
				noteKeptContext(ui, kept)
				return "your commands go to this cluster now"
			}
		}
	}
	return fmt.Sprintf("this machine can't talk to the cluster (%v); open the port, or run commands on the master: %s",
		why, strings.Join(addresses, " or "))
}

// noteKeptContext says where the access to another cluster is kept, if file is not empty.
func noteKeptContext(ui *console, file string) {
	if file != "" {
		_, id, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "-")
		ui.say("your access to another cluster is kept in %s; go back to that cluster with: mlfnode context use %s",
			file, id)
	}
}

func introduce(ctx context.Context, address string, token trust.Token) (trust.Context, error) {
	ctx, stop := context.WithTimeout(ctx, reachTimeout)
	defer stop()
	return node.Introduce(ctx, address, token)
}

// hasAccess reports whether commands go to a master at one of the addresses and reach it, and
// whether the context says that the cluster was down.
func hasAccess(ctx context.Context, addresses []string) (known, wasDown bool) {
	file, err := node.ContextFile()
	if err != nil {
		return false, false
	}
	c, err := trust.LoadContext(file)
	reached := func(master string) bool { return slices.Contains(addresses, master) }
	if err != nil || c.Role != trust.RoleAdmin || !slices.ContainsFunc(c.Master, reached) {
		return false, false
	}
	contact, err := node.FindContact("")
	if err != nil || contact == nil {
		return false, false
	}
	ctx, stop := context.WithTimeout(ctx, reachTimeout)
	defer stop()
	s, err := node.Reach(ctx, contact)
	if err != nil {
		return false, false
	}
	s.Close()
	return true, c.Down != nil
}

// recordDown records in the user's context, once the master is down, that its cluster can be
// brought up with the file. After a purge it removes the context. Another cluster, whose master may
// have run on the same machine, is left alone.
func recordDown(ctx context.Context, all []bootstrap.Outcome, purged bool, with string) error {
	i := slices.IndexFunc(all, func(o bootstrap.Outcome) bool { return slices.Contains(o.Roles, grid.Master) })
	if i < 0 || !all[i].OK {
		return nil
	}
	file, err := node.ContextFile()
	if err != nil {
		return nil // there is no context
	}
	known, err := trust.LoadContext(file)
	if errors.Is(err, trust.ErrNoContext) {
		return nil
	}
	if err != nil {
		return err
	}
	if gone := purged && wasPurged(ctx, known, &all[i], absolute(with)); !gone && !known.Trusts(all[i].Authority) {
		return nil
	}
	if purged {
		if err := os.Remove(file); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(file)) // other files may be in it
		return nil
	}
	if known.Down != nil && len(all[i].Changed) == 0 {
		return nil // it was down before
	}
	known.Down = &trust.Down{At: time.Now().Truncate(time.Second), File: absolute(with)}
	_, err = node.SaveContext(known)
	return err
}

// wasPurged reports whether a master whose files are gone, and with them the name of its cluster,
// was the one of the context: the context names an address of its machine, where nothing answers.
// file describes the cluster.
func wasPurged(ctx context.Context, known trust.Context, master *bootstrap.Outcome, file string) bool {
	if master.Authority != "" || known.Down != nil && known.Down.File != file {
		return false
	}
	here := false
	ctx, stop := context.WithTimeout(ctx, reachTimeout)
	defer stop()
	for _, address := range known.Master {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address); err == nil {
			conn.Close()
			return false // another cluster
		}
		host, _, _ := net.SplitHostPort(address)
		here = here || slices.Contains(master.Reached, host)
	}
	return here
}

// absolute returns the absolute path of a file if it can be determined.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/node"
	"mlfnode/node/api"
)

// completionTimeout is how long a shell waits for the names of sweeps.
const completionTimeout = 3 * time.Second

// completeSweeps completes sweeps by id and by name, the newest first. If it can't reach a node, it
// offers none.
func completeSweeps(to *connector) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && c.Args != nil && c.Args(c, append(args, api.Last)) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var all []api.Sweep
		err := askForCompletion(c.Context(), to, func(ctx context.Context, s *node.Session) (err error) {
			all, err = s.Client().Sweeps().List(ctx)
			return err
		})
		if err != nil || len(all) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		named := map[string]int{}
		for i := range all {
			named[all[i].Name]++
		}
		list := []cobra.Completion{api.Last + "\tthe newest sweep"}
		for _, v := range slices.Backward(all) {
			list = append(list, string(v.Sweep)+"\t"+summaryLine(&v)+", "+timeAgo(v.Submitted))
			if v.Name != "" && named[v.Name] == 1 && !strings.ContainsAny(v.Name, " \t") {
				list = append(list, v.Name+"\t"+summaryLine(&v))
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// askForCompletion calls ask with a session, for a shell that waits: briefly, and without messages.
func askForCompletion(ctx context.Context, to *connector, ask func(context.Context, *node.Session) error) error {
	ctx, stop := context.WithTimeout(ctx, completionTimeout)
	defer stop()
	quiet := to.withConsole(newConsole(to.stdout, io.Discard))
	return quiet.withSession(ctx, func(s *node.Session) error { return ask(ctx, s) })
}

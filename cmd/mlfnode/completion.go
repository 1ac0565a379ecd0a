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
		ctx, stop := context.WithTimeout(c.Context(), completionTimeout)
		defer stop()
		quiet := to.withConsole(newConsole(to.stdout, io.Discard))
		var all []api.Sweep
		err := quiet.withSession(ctx, func(s *node.Session) (err error) {
			all, err = s.Client().Sweeps(ctx)
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

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

func sweepsCommand(a *app) *cobra.Command {
	mine := false
	var states []string
	c := &cobra.Command{
		Use: "sweeps", Short: "List sweeps", Args: noArgument,
		Example: `  mlfnode sweeps
  mlfnode sweeps --mine
  mlfnode sweeps --state running,paused
  mlfnode sweeps --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range states {
				if !slices.Contains(sweepStates[:], grid.SweepState(s)) {
					return usage(fmt.Sprintf("%q is not a state of a sweep", s),
						"running, paused, cancelled or finished")
				}
			}
			err := a.withSession(c.Context(), func(s *node.Session) error {
				return listSweeps(c.Context(), a.console, s.Client(), mine, states)
			})
			if errors.Is(err, errNoState) {
				return printSweeps(a.console, nil)
			}
			return err
		},
	}
	c.Flags().BoolVar(&mine, "mine", false, "only the sweeps that you have submitted")
	c.Flags().StringSliceVar(&states, "state", nil, "only sweeps in this state: running, paused, cancelled, finished")
	a.jsonFlag(c)
	return c
}

var sweepStates = [...]grid.SweepState{grid.SweepRunning, grid.SweepPaused, grid.SweepCancelled, grid.SweepFinished}

// listSweeps prints the sweeps in these states; without states, all of them.
func listSweeps(ctx context.Context, ui *console, c *api.Client, mine bool, states []string) error {
	all, err := c.Sweeps().List(ctx)
	if err != nil {
		return err
	}
	if mine {
		owned := slices.ContainsFunc(all, func(v api.Sweep) bool { return v.Owner != "" })
		some := len(all) > 0
		all = slices.DeleteFunc(all, func(v api.Sweep) bool { return v.Owner != userName() })
		none := some && len(all) == 0 && !ui.json
		switch {
		case some && !owned:
			ui.say("note: no sweep says who submitted it: this program, or the master, was of an older version then")
		case none:
			ui.say("you have no sweeps; list all of them with: mlfnode sweeps")
		}
		if none {
			return nil
		}
	}
	if some := len(all) > 0; some && states != nil {
		all = slices.DeleteFunc(all, func(v api.Sweep) bool { return !slices.Contains(states, string(v.State)) })
		if len(all) == 0 && !ui.json {
			ui.say("no sweep is %s; list all of them with: mlfnode sweeps", strings.Join(states, " or "))
			return nil
		}
	}
	if err := printSweeps(ui, all); err != nil || ui.json || len(all) == 0 {
		return err
	}
	return printSweepNotes(ctx, ui, c, all)
}

// printSweeps prints sweeps, the newest last.
func printSweeps(ui *console, all []api.Sweep) error {
	if ui.json {
		out := jsonArray{w: ui.stdout}
		for i := range all {
			if err := out.add(&all[i]); err != nil {
				return err
			}
		}
		return out.close()
	}
	if len(all) == 0 {
		ui.say("there are no sweeps yet; start one with: mlfnode sweep PROJECT")
		return nil
	}
	head := []string{"sweep", "state", "trials", "pending", "running", "succeeded", "failed", "cancelled", "submitted"}
	shared := slices.ContainsFunc(all, func(v api.Sweep) bool { return v.Owner != "" && v.Owner != userName() })
	if shared {
		head = append(head, "owner")
	}
	stopped := slices.ContainsFunc(all, func(v api.Sweep) bool { return v.Stopped > 0 })
	if stopped {
		head = slices.Insert(head, slices.Index(head, "cancelled"), "stopped")
	}
	t := newTable(ui.stdout, append(head, "name")...)
	for _, s := range all {
		n := func(v int64) string { return strconv.FormatInt(v, 10) }
		row := []string{string(s.Sweep), string(s.State), n(s.Count), n(s.Pending), n(s.Running), n(s.Succeeded),
			n(s.Failed)}
		if stopped {
			row = append(row, n(s.Stopped))
		}
		row = append(row, n(s.OnlyCancelled()), timeAgo(s.Submitted))
		if shared {
			row = append(row, s.Owner)
		}
		t.row(append(row, s.Name)...)
	}
	return t.flush()
}

// printSweepNotes prints what hinders each sweep, and what was or will soon be removed.
func printSweepNotes(ctx context.Context, ui *console, c *api.Client, all []api.Sweep) error {
	n, err := c.Node(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Problem != "" {
			ui.say("%s: %s", s.Sweep, oneLine(s.Problem))
		} else if s.Waits != "" {
			ui.say("%s waits: %s; for more: mlfnode trials --explain %s/INDEX", s.Sweep, s.Waits, s.Sweep)
		}
		for _, g := range s.Sharing {
			if s.Ended == nil {
				ui.say("%s: on %s %s", s.Sweep, oneLine(strings.TrimSpace(g.Model+" "+g.Value)), g.Text)
			}
		}
	}
	if near := nearRetention(&n, all, time.Now()); near != "" {
		ui.say("%s (node.yaml: retention)", near)
	}
	return nil
}

// nearRetention names the limits of retention that are at nine tenths or more, so that something
// was or will soon be removed. It is empty if there is room.
func nearRetention(n *api.Node, all []api.Sweep, now time.Time) string {
	var near []string
	ended, oldest := 0, time.Duration(0)
	for i := range all {
		if all[i].Ended != nil {
			ended++
			oldest = max(oldest, now.Sub(*all[i].Ended))
		}
	}
	if most := n.Retention.Sweeps; most > 0 && ended >= most-most/10 {
		near = append(near, fmt.Sprintf("only the newest %d ended sweeps are kept", most))
	}
	if age := n.Retention.Age; age > 0 && oldest >= age-age/10 {
		near = append(near, fmt.Sprintf("ended sweeps are removed after %s", age))
	}
	for _, s := range n.Store {
		if s.Name != "leases" && s.Limit > 0 && s.Bytes >= s.Limit-s.Limit/10 {
			near = append(near, fmt.Sprintf("%s %s of %s", s.Name,
				humanize.IBytes(uint64(s.Bytes)), humanize.IBytes(uint64(s.Limit))))
		}
	}
	return strings.Join(near, "; ")
}

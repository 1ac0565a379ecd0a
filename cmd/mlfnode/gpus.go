package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node/api"
)

func (a *app) gpusCommand() *cobra.Command {
	clear := ""
	c := &cobra.Command{
		Use: "gpus", Short: "List the GPUs of the cluster and how they are used", Args: noArgument,
		Long: `List the GPUs of the cluster and how they are used, as this node sees them: memory and how much of it is used, how busy it is, its
state, and which trials run on it. A MIG instance is a row of its own below its GPU, as in 1.0. It works with the master down, too.

A GPU with an error stays out of service until it was reset, or until --clear says that it is well.`,
		Example: "  mlfnode gpus\n  mlfnode gpus --json\n  mlfnode gpus --clear hostA:1",
		RunE: func(c *cobra.Command, _ []string) error {
			if clear != "" {
				return a.clearGPU(c.Context(), clear)
			}
			all, err := a.members(c.Context())
			if err != nil {
				return err
			}
			return a.listGPUs(all)
		},
	}
	c.Flags().StringVar(&clear, "clear", "", "take `HOST:GPU`, which was out of service, back into it; GPU is an index or a UUID")
	a.jsonFlag(c)
	return c
}

// clearGPU takes a GPU back into service.
func (a *app) clearGPU(ctx context.Context, name string) error {
	node, gpu, ok := strings.Cut(name, ":")
	if !ok || node == "" || gpu == "" {
		return usage(fmt.Sprintf("--clear %s: it names no GPU of a node", name), "--clear HOST:INDEX, as mlfnode gpus lists them")
	}
	return a.onMaster(ctx, func(client *api.Client) error { return client.ClearGPU(ctx, grid.NodeID(node), gpu) })
}

func (a *app) listGPUs(all []api.Member) error {
	devices := []api.GPU{}
	var notes []string
	for i := range all {
		m := &all[i]
		if !isThere(m) {
			continue
		}
		devices = append(devices, m.Devices...)
		if m.Problem != "" {
			notes = append(notes, fmt.Sprintf("%s: %s", m.Node, m.Problem))
		}
		if m.MoreDevices {
			notes = append(notes, fmt.Sprintf("%s has more GPUs than it can tell the others; in all it has %s", m.Node, groupsText(m.Groups)))
		}
	}
	for _, note := range notes {
		a.say("%s", sanitize([]byte(note)))
	}
	if a.json {
		return a.printJSON(devices)
	}
	if len(devices) == 0 && len(notes) == 0 {
		a.say("no node has a GPU")
	}
	if len(devices) == 0 {
		return nil
	}
	t := newTable(a.stdout, "node", "gpu", "model", "memory", "used", "busy", "temperature", "power", "state", "trials")
	var reasons []string
	for i := range devices {
		g := &devices[i]
		number, model := strconv.Itoa(g.Index), g.Name
		if g.Instance >= 0 {
			number, model = number+"."+strconv.Itoa(g.Instance), g.Profile
		}
		t.row(string(g.Node), number, model, bytesText(g.Memory), bytesText(g.Used), known(g.Utilization, "%"), known(g.Temperature, " °C"),
			known(g.Power, " W"), deviceState(g), strings.Join(g.Trials, " "))
		if why := deviceReason(g); why != "" {
			reasons = append(reasons, fmt.Sprintf("%s GPU %s: %s", g.Node, number, why))
		}
	}
	if err := t.end(); err != nil {
		return err
	}
	for _, why := range reasons {
		fmt.Fprintln(a.stdout, sanitize([]byte(why)))
	}
	return nil
}

// deviceState is what trials may make of a device.
func deviceState(g *api.GPU) string {
	switch {
	case g.Problem != "" && (g.State == "" || g.State == "ready"):
		return "unusable"
	case g.MIG:
		return "divided"
	}
	return g.State
}

// deviceReason says what is special about a device.
func deviceReason(g *api.GPU) string {
	switch {
	case g.Why != "":
		return g.Why
	case g.Problem != "":
		return g.Problem
	case g.Mode == "exclusive":
		return "in exclusive mode: trials can't share it"
	case g.Mode == "prohibited":
		return "its compute mode lets no program use it"
	}
	return ""
}

// groupsText counts devices by kind, as in "8 × NVIDIA A100-SXM4-40GB".
func groupsText(groups []api.GPUGroup) string {
	var parts []string
	for _, g := range groups {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d × %s %s", g.Total, g.Model, g.Profile)))
	}
	return strings.Join(parts, ", ")
}

// known is a figure with its unit, empty for one that the driver does not tell.
func known(v int, unit string) string {
	if v < 0 {
		return ""
	}
	return strconv.Itoa(v) + unit
}

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/node/api"
)

func gpusCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "gpus", Short: "List the GPUs of the cluster and how they are used", Args: noArgument,
		Long: `List the GPUs of the cluster and how they are used, as this node sees them: memory and how much of
it is used, how busy it is, its state, and which trials run on it. A MIG instance has its own row
below its GPU, such as 1.0. This also works while the master is down.

A GPU with an error stays out of service until it is reset, or until its node is drained and
undrained.`,
		Example: `  mlfnode gpus
  mlfnode gpus --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := clusterMembers(c.Context(), a)
			if err != nil {
				return err
			}
			return printGPUs(a.console, all)
		},
	}
	a.jsonFlag(c)
	return c
}

func printGPUs(ui *console, all []api.Member) error {
	devices := []api.GPU{}
	var notes []string
	for i := range all {
		m := &all[i]
		if !mayWork(m) {
			continue
		}
		devices = append(devices, m.Devices...)
		if m.Problem != "" {
			notes = append(notes, fmt.Sprintf("%s: %s", m.Node, m.Problem))
		}
		if m.MoreDevices {
			notes = append(notes,
				fmt.Sprintf("%s has more GPUs than it can announce; in total it has %s", m.Node, groupsText(m.Groups)))
		}
	}
	for _, note := range notes {
		ui.say("%s", sanitize([]byte(note)))
	}
	if ui.json {
		return ui.printJSON(devices)
	}
	if len(devices) == 0 && len(notes) == 0 {
		ui.say("no node has a GPU")
	}
	if len(devices) == 0 {
		return nil
	}
	t := newTable(ui.stdout, "node", "gpu", "model", "memory", "used", "busy", "temperature", "power", "state",
		"trials")
	var reasons []string
	for i := range devices {
		g := &devices[i]
		number, model := strconv.Itoa(g.Index), g.Name
		if g.Instance >= 0 {
			number, model = number+"."+strconv.Itoa(g.Instance), g.Profile
		}
		t.row(string(g.Node), number, model, bytesText(g.Memory), bytesText(g.Used), figureText(g.Utilization, "%"),
			figureText(g.Temperature, " °C"), figureText(g.Power, " W"), deviceState(g), strings.Join(g.Trials, " "))
		if why := deviceReason(g); why != "" {
			reasons = append(reasons, fmt.Sprintf("%s GPU %s: %s", g.Node, number, why))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, why := range reasons {
		fmt.Fprintln(ui.stdout, sanitize([]byte(why)))
	}
	return nil
}

// deviceState returns the state of a device as trials see it.
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

// figureText returns a figure with its unit, "" if the driver does not report it.
func figureText(v int, unit string) string {
	if v < 0 {
		return ""
	}
	return strconv.Itoa(v) + unit
}

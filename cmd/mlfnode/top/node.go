package top

import (
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
)

// nodeScreen is one node with its GPUs.
type nodeScreen struct {
	node grid.NodeID
	gpus cursor
}

func (n *nodeScreen) name() string { return clean(string(n.node)) }

func (n *nodeScreen) topics() []string { return []string{"nodes", "overview"} }

func (n *nodeScreen) refresh(*Model) tea.Cmd { return nil }

func (n *nodeScreen) keys(m *Model) []binding {
	node := m.cluster.nodes[n.node]
	if node == nil {
		return nil
	}
	return slices.Concat([]binding{{movesHelp, "move", nil}}, nodeActions(m, node),
		n.gpus.moves(len(node.Devices), func() {}))
}

func (n *nodeScreen) view(m *Model, width, height int) []string {
	node := m.cluster.nodes[n.node]
	switch {
	case node == nil && m.cluster.names == nil:
		return []string{m.paint.text(faint, m.cluster.waiting())}
	case node == nil:
		return []string{fit("There is no node "+clean(string(n.node))+" any more.", width)}
	}
	facts := []string{
		m.paint.state(nodeState(node)) + " since " + clock(node.Since, m.now()),
		fmt.Sprintf("running %d", node.Running), fmt.Sprintf("load %.1f of %g CPUs", node.Load, node.CPUs),
		"memory " + bytesText(node.Memory), "roles " + strings.Join(node.Roles, ", "),
		"version " + clean(node.Version), "address " + clean(node.Address),
	}
	if node.Driver != "" {
		facts = append(facts, "driver "+clean(node.Driver))
	}
	if node.CUDA != "" {
		facts = append(facts, "CUDA "+clean(node.CUDA))
	}
	out := flow(facts, width)
	for _, why := range []string{node.Reason, node.Problem} {
		if why != "" {
			out = append(out, wrapped(m.paint, warn, why, width, 3)...)
		}
	}
	out = append(out, "")
	if len(node.Devices) == 0 {
		return append(out, m.paint.text(faint, "no GPUs"))
	}
	columns := []column{
		{head: "GPU"}, {head: "busy", right: true}, {head: "memory", right: true, rank: 1}, {head: "state", rank: 2},
		{head: "name", rank: 3}, {head: "°C", right: true, rank: 5},
		{head: "W", right: true, rank: 6}, {head: "trials", rank: 4},
	}
	from, to := n.gpus.window(len(node.Devices), height-len(out)-1)
	var cells [][]string
	for i := range node.Devices[from:to] {
		d := &node.Devices[from+i]
		id := fmt.Sprint(d.Index)
		if d.Instance >= 0 {
			id += fmt.Sprintf(".%d", d.Instance)
		}
		state := clean(d.State)
		if state == "" {
			state = "ready"
		}
		cells = append(cells, []string{
			id, known(d.Utilization, " %"), bytesText(d.Used) + "/" + bytesText(d.Memory),
			join(": ", state, clean(d.Why)), clean(join(" ", d.Name, d.Profile)),
			known(d.Temperature, ""), known(d.Power, ""), clean(strings.Join(d.Trials, " ")),
		})
	}
	return append(out, m.paint.table(width, columns, cells, n.gpus.at-from, nil)...)
}

// known formats a figure that may be missing.
func known(n int, unit string) string {
	if n < 0 {
		return "–"
	}
	return fmt.Sprint(n) + unit
}

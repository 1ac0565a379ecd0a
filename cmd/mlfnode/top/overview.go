package top

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

const (
	// pausedTopics is how many paused sweeps have topics of their own: the overview's own topic
	// reports only sweeps that are active.
	pausedTopics = 20
	gpusShown    = 16 // per node
)

// overview shows what the cluster does: its figures, its sweeps and its nodes.
type overview struct {
	list    loader[api.SweepList]
	sweeps  cursor
	chosen  grid.SweepID // at the cursor, which follows it when the list changes
	nodes   cursor
	node    grid.NodeID // at the cursor in the list of nodes
	onNodes bool        // keys apply to the nodes
}

func (o *overview) name() string { return "overview" }

func (o *overview) topics() []string {
	all := []string{"overview", "nodes"}
	for i := range o.list.value.Sweeps {
		if s := &o.list.value.Sweeps[i]; s.State == grid.SweepPaused && len(all) < pausedTopics {
			all = append(all, "sweep:"+string(s.Sweep))
		}
	}
	return all
}

func (o *overview) refresh(m *Model) tea.Cmd {
	type version struct{ epoch, sweeps, active int }
	v := version{epoch: m.cluster.epoch}
	if c := m.cluster.overview; c != nil {
		v.sweeps, v.active = c.Sweeps, c.Active
	}
	return o.list.want(m, v, func(ctx context.Context, c *api.Client) (api.SweepList, error) {
		return c.Sweeps().Newest(ctx, api.MaxSweepsPage)
	})
}

// rows returns the current sweeps, beginning with those that run or may run trials.
func (o *overview) rows(m *Model) []api.Sweep {
	var going, rest []api.Sweep
	for _, s := range o.list.value.Sweeps {
		s = withState(s, m.cluster.sweeps[s.Sweep])
		switch {
		case s.State == sweepRemoved:
		case s.State == grid.SweepRunning || s.State == grid.SweepPaused || s.Running > 0:
			going = append(going, s)
		default:
			rest = append(rest, s)
		}
	}
	return append(going, rest...)
}

// sweepRemoved is the state of a sweep that has been removed.
const sweepRemoved grid.SweepState = "removed"

// at puts the cursor on the chosen sweep and returns that, or nil if there is none.
func (o *overview) at(rows []api.Sweep) *api.Sweep {
	if i := slices.IndexFunc(rows, func(s api.Sweep) bool { return s.Sweep == o.chosen }); i >= 0 {
		o.sweeps.at = i
	}
	if len(rows) == 0 {
		return nil
	}
	o.sweeps.at = max(0, min(o.sweeps.at, len(rows)-1))
	o.chosen = rows[o.sweeps.at].Sweep
	return &rows[o.sweeps.at]
}

// atNode puts the cursor on the chosen node and returns that.
func (o *overview) atNode(all []*api.Member) *api.Member {
	if i := slices.IndexFunc(all, func(n *api.Member) bool { return n.Node == o.node }); i >= 0 {
		o.nodes.at = i
	}
	o.nodes.at = max(0, min(o.nodes.at, len(all)-1))
	o.node = all[o.nodes.at].Node
	return all[o.nodes.at]
}

func (o *overview) keys(m *Model) []binding {
	rows := o.rows(m)
	tab := binding{"tab", "sweeps or nodes", func() tea.Cmd {
		o.onNodes = !o.onNodes && len(m.cluster.members()) > 0
		return nil
	}}
	if o.onNodes {
		all := m.cluster.members()
		if len(all) == 0 {
			o.onNodes = false
			return []binding{tab}
		}
		n := o.atNode(all)
		return slices.Concat([]binding{{movesHelp, "move", nil},
			{"enter l right", "show the node", func() tea.Cmd { return m.open(&nodeScreen{node: n.Node}) }}, tab},
			nodeActions(m, n), o.nodes.moves(len(all), func() { o.node = all[o.nodes.at].Node }))
	}
	s := o.at(rows)
	if s == nil {
		return []binding{tab}
	}
	moves := o.sweeps.moves(len(rows), func() { o.chosen = rows[o.sweeps.at].Sweep })
	return slices.Concat([]binding{{movesHelp, "move", nil},
		{"enter l right", "show the sweep", func() tea.Cmd { return m.open(newSweepScreen(s.Sweep)) }}, tab},
		sweepActions(m, s, ""), moves)
}

func (o *overview) view(m *Model, width, height int) []string {
	out := o.figures(m, width)
	if c := m.cluster.overview; c != nil && c.Problem != "" {
		out = append(out, wrapped(m.paint, warn, "Nothing runs: "+c.Problem, width, 2)...)
	}
	rows, nodes := o.rows(m), m.cluster.members()
	o.at(rows)
	forNodes := 0
	if len(nodes) > 0 {
		forNodes = min(len(nodes)+3, max(4, (height-len(out))/2))
		forNodes = max(forNodes, min(len(nodes)+3, height-len(out)-len(rows)-4))
	}
	out = append(out, "")
	out = append(out, o.sweepTable(m, rows, width, height-len(out)-forNodes)...)
	if forNodes > 0 {
		out = append(out, "", m.paint.text(strong, "Nodes"))
		out = append(out, o.nodeTable(m, nodes, width, forNodes-3)...)
	}
	return out
}

// figures returns the totals.
func (o *overview) figures(m *Model, width int) []string {
	c := m.cluster.overview
	if c == nil {
		return []string{m.paint.text(faint, m.cluster.waiting())}
	}
	speed := 0.0
	for _, s := range m.cluster.sweeps {
		if s.State == grid.SweepRunning {
			speed += s.Rate
		}
	}
	p := m.paint
	figure := func(name string, t tone, n int64) string { return name + " " + p.text(t, count(n)) }
	failed := plain
	if c.Failed > 0 {
		failed = bad
	}
	parts := []string{
		join(" ", figure("running", running, c.Running), rate(speed)), figure("waiting", strong, c.Pending),
		figure("succeeded", good, c.Succeeded), figure("failed", failed, c.Failed),
	}
	if nodes := m.cluster.members(); len(nodes) > 0 {
		alive, gpus, busy := 0, 0, 0
		for _, n := range nodes {
			if n.State == "alive" {
				alive++
				all, used := gpuUse(n)
				gpus, busy = gpus+all, busy+used
			}
		}
		parts = append(parts, fmt.Sprintf("nodes %d/%d", alive, len(nodes)))
		if gpus > 0 {
			parts = append(parts, fmt.Sprintf("GPUs %d/%d busy", busy, gpus))
		}
	}
	return flow(parts, width)
}

// flow lays out parts in as many lines as they need.
func flow(parts []string, width int) []string {
	var out []string
	at := ""
	for _, part := range parts {
		next := join("   ", at, part)
		if at != "" && fit(next, width) != next {
			out, next = append(out, at), part
		}
		at = next
	}
	return append(out, fit(at, width))
}

// gpuUse counts the GPUs of a node, and those that are computing.
func gpuUse(n *api.Member) (all, busy int) {
	if len(n.Devices) == 0 {
		return n.GPUs, 0
	}
	for i := range n.Devices {
		if d := &n.Devices[i]; !d.MIG {
			all++
			if d.Utilization >= busyFrom {
				busy++
			}
		}
	}
	return all, busy
}

const busyFrom = 5 // per cent

func (o *overview) sweepTable(m *Model, rows []api.Sweep, width, height int) []string {
	title := m.paint.text(strong, "Sweeps")
	switch l := &o.list; {
	case !l.known && l.err != nil:
		return append([]string{title}, wrapped(m.paint, bad, clean(reason(l.err)), width, 3)...)
	case !l.known:
		return []string{title, m.paint.text(faint, m.cluster.waiting())}
	case len(rows) == 0:
		return []string{title, fit("There are no sweeps yet. In another terminal:", width),
			fit("  mlfnode sweep PROJECT", width)}
	}
	problem := problemOf(m, o.list.err, width)
	height -= len(problem)
	if more := o.list.value.Total - len(o.list.value.Sweeps); more > 0 {
		title += m.paint.text(faint, fmt.Sprintf("  the newest %d; %s more: mlfnode sweeps", len(o.list.value.Sweeps),
			count(int64(more))))
	}
	from, to := o.sweeps.window(len(rows), height-2)
	columns := []column{
		{head: "  sweep"}, {head: "state", rank: 4}, {head: "progress", fill: true, rank: 7},
		{head: "done", right: true}, {head: "trials", right: true, rank: 5},
		{head: "failed", right: true, rank: 2}, {head: "running", right: true, rank: 3},
		{head: "rate", right: true, rank: 6}, {head: "left", right: true, rank: 1},
		{head: "task", rank: 8},
	}
	cells := make([][]string, 0, to-from)
	for i := range rows[from:to] {
		s := &rows[from+i]
		sign, t := look(string(s.State))
		cells = append(cells, []string{
			m.paint.text(t, sign) + " " + clean(string(s.Sweep)), m.paint.text(t, string(s.State)), "",
			percent(done(&s.SweepCounts), s.Count), count(s.Count), some(s.Failed), some(s.Running),
			rateOf(m, s), strings.TrimSuffix(ends(s), " left"), join(" · ", clean(s.Task), clean(s.Name)),
		})
	}
	at := o.sweeps.at - from
	if o.onNodes {
		at = -1
	}
	return append(append([]string{fit(title, width)}, problem...),
		m.paint.table(width, columns, cells, at, func(row, w int) string {
			return m.paint.bar(&rows[from+row].SweepCounts, w)
		})...)
}

// some formats a number; 0 becomes "".
func some(n int64) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

func rateOf(m *Model, s *api.Sweep) string {
	if state := m.cluster.sweeps[s.Sweep]; state != nil && s.State == grid.SweepRunning {
		return rate(state.Rate)
	}
	return ""
}

// ends describes how long a sweep will still run.
func ends(s *api.Sweep) string {
	if s.State != grid.SweepRunning || s.ETA == nil {
		return ""
	}
	return printable.Seconds(math.Round(*s.ETA)) + " left"
}

func (o *overview) nodeTable(m *Model, nodes []*api.Member, width, height int) []string {
	o.atNode(nodes)
	from, to := o.nodes.window(len(nodes), height)
	columns := []column{
		{head: "node"}, {head: "state", rank: 1}, {head: "running", right: true, rank: 2},
		{head: "load", right: true, rank: 4}, {head: "GPUs", rank: 3},
		{head: "memory", right: true, rank: 6}, {head: "roles", rank: 7}, {head: "why", rank: 5},
	}
	cells := make([][]string, 0, to-from)
	for _, n := range nodes[from:to] {
		cells = append(cells, []string{
			clean(string(n.Node)), m.paint.state(nodeState(n)), count(int64(n.Running)),
			fmt.Sprintf("%.1f/%g", n.Load, n.CPUs), gpuCells(m.paint, n),
			bytesText(n.Memory), strings.Join(n.Roles, ","), clean(join(" ", n.Reason, n.Problem)),
		})
	}
	at := -1
	if o.onNodes {
		at = o.nodes.at - from
	}
	return m.paint.table(width, columns, cells, at, nil)
}

// gpuCells shows how busy each GPU of a node is; a GPU that trials can't have is crossed out.
func gpuCells(p paint, n *api.Member) string {
	var b strings.Builder
	all, busy := gpuUse(n)
	if all == 0 {
		return ""
	}
	shown := 0
	for i := range n.Devices {
		d := &n.Devices[i]
		if d.MIG || shown == gpusShown {
			continue
		}
		shown++
		switch {
		case d.State != "" && d.State != "ready":
			b.WriteString(p.text(bad, "x"))
		case d.Utilization < 0:
			b.WriteString("?")
		default:
			levels := []rune("▁▂▃▄▅▆▇█")
			level := max(0, min(len(levels)-1, d.Utilization*len(levels)/100))
			b.WriteString(p.text(running, string(levels[level])))
		}
	}
	return join(" ", b.String(), fmt.Sprintf("%d/%d", busy, all))
}

// problemOf describes why what is shown could not be reloaded; it returns "" if it could.
func problemOf(m *Model, err error, width int) []string {
	if err == nil {
		return nil
	}
	return wrapped(m.paint, bad, reason(err), width, 2)
}

// wrapped returns a text of several lines in a tone.
func wrapped(p paint, t tone, text string, width, lines int) []string {
	out := wrap(clean(text), width, lines)
	for i := range out {
		out[i] = p.text(t, out[i])
	}
	return out
}

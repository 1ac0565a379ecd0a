package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/parallel"
)

// Timeline shows what ran when: single trials if there are few, otherwise how busy each node was.
type Timeline struct {
	Head
	Base  int64    `json:"base"` // the first event, microseconds since 1970; times are seconds since
	From  Number   `json:"from"`
	To    Number   `json:"to"`
	Bars  *Bars    `json:"bars,omitempty"`
	Lanes []Lane   `json:"lanes,omitempty"` // without bars
	Edges []Number `json:"edges"`           // of the bins of lanes and of Rate
	Rate  Rate     `json:"rate"`
}

// Bars are trials in columns, with the last attempt of each.
type Bars struct {
	Trial []int64       `json:"trial"`
	Node  []grid.NodeID `json:"node"`
	Lane  []int         `json:"lane"` // of the node: trials in one do not overlap
	Start []Number      `json:"start"`
	End   []Number      `json:"end"` // now for a running one
	State []string      `json:"state"`
}

// Lane is the average number of trials that ran on a node in each bin.
type Lane struct {
	Node grid.NodeID `json:"node"`
	Busy []Number    `json:"busy"`
}

// Rate counts the trials that ended in each bin, by state.
type Rate struct {
	Succeeded []int64 `json:"succeeded"`
	Failed    []int64 `json:"failed"`
	Cancelled []int64 `json:"cancelled"`
}

const (
	maxBars   = 2000
	maxLanes  = 100
	laneBins  = 200
	shortLane = 1e-3 // minimum length of a bar, in seconds
)

// Timeline shows the selected trials that have started.
func (v *View) Timeline() *Timeline {
	t := &Timeline{Base: v.d.Base, Edges: []Number{}}
	rows := kept(v.rows, func(r int32) bool { return finite(float64(v.d.Started[r])) })
	if len(rows) == 0 {
		t.Head = v.head("None of these trials has begun.")
		return t
	}
	lo, hi, nodes := timeSpan(v, rows)
	t.From, t.To = Number(lo), Number(hi)
	for i := range laneBins + 1 {
		t.Edges = append(t.Edges, Number(lo+(hi-lo)*float64(i)/laneBins))
	}
	if len(rows) <= maxBars {
		t.sumUp(v, rows, nil)
		t.bars(v, sortRows(rows, v.d.Started, false))
	} else {
		t.sumUp(v, rows, nodes[:min(len(nodes), maxLanes)])
	}
	t.Head = v.head(fmt.Sprintf("%d trials ran within %s on %d nodes.", len(rows), seconds(hi-lo), len(nodes)))
	return t
}

// barEnd returns when a trial that has started ended; for a running one, that is now.
func (t *trials) barEnd(r int32) float32 {
	end := t.d.Ended[r]
	switch {
	case t.d.State[r] == running:
		return float32(t.d.Now)
	case !finite(float64(end)):
		return t.d.Started[r]
	}
	return end
}

// timeSpan returns the time span in which the trials ran, and their nodes in the order of their
// first trials.
func timeSpan(v *View, rows []int32) (lo, hi float64, nodes []uint16) {
	spans := parallel.Split(len(rows), leastRows)
	type part struct {
		lo, hi float32
		nodes  []uint16
	}
	parts := make([]part, len(spans))
	parallel.Each(len(spans), func(i int) {
		p := part{lo: float32(math.Inf(1)), hi: float32(math.Inf(-1))}
		var seen [math.MaxUint16 + 1]bool
		for _, r := range rows[spans[i].Lo:spans[i].Hi] {
			p.lo, p.hi = min(p.lo, v.d.Started[r]), max(p.hi, v.barEnd(r))
			if n := v.d.Node[r]; !seen[n] {
				seen[n] = true
				p.nodes = append(p.nodes, n)
			}
		}
		parts[i] = p
	})
	lo, hi = math.Inf(1), math.Inf(-1)
	var seen [math.MaxUint16 + 1]bool
	for _, p := range parts {
		lo, hi = min(lo, float64(p.lo)), max(hi, float64(p.hi))
		for _, n := range p.nodes {
			if !seen[n] {
				seen[n] = true
				nodes = append(nodes, n)
			}
		}
	}
	return lo, hi, nodes
}

func (t *Timeline) bin(f float64) int {
	return min(laneBins-1, max(0, int((f-float64(t.From))/max(1e-9, float64(t.To-t.From))*laneBins)))
}

// sumUp counts, in each bin, the trials that ended, and those that ran on each of some nodes.
func (t *Timeline) sumUp(v *View, rows []int32, nodes []uint16) {
	var lanes [math.MaxUint16 + 1]int32 // of each node, from 1; 0 for one without a lane
	for i, n := range nodes {
		lanes[n] = int32(i + 1)
	}
	spans := parallel.Split(len(rows), leastRows)
	rates := make([][8][laneBins]int64, len(spans)) // by state
	busy := make([][][laneBins]float64, len(spans)) // by lane
	width := float64(t.To-t.From) / laneBins
	share := float64(max(1, v.d.Stride)) / width
	parallel.Each(len(spans), func(i int) {
		busy[i] = make([][laneBins]float64, len(nodes))
		for _, r := range rows[spans[i].Lo:spans[i].Hi] {
			end := float64(v.barEnd(r))
			last := t.bin(end)
			rates[i][v.d.State[r]&7][last]++
			lane := lanes[v.d.Node[r]]
			if lane == 0 {
				continue
			}
			start, bins := float64(v.d.Started[r]), &busy[i][lane-1]
			first := t.bin(start)
			if first == last { // as for most trials
				bins[first] += max(0, end-start) * share
				continue
			}
			for b := first; b <= last; b++ {
				from := float64(t.From) + float64(b)*width
				bins[b] += max(0, min(end, from+width)-max(start, from)) * share
			}
		}
	})
	t.Rate = Rate{make([]int64, laneBins), make([]int64, laneBins), make([]int64, laneBins)}
	for _, part := range rates {
		for b := range laneBins {
			t.Rate.Succeeded[b] += part[succeeded][b]
			t.Rate.Failed[b] += part[failed][b]
			t.Rate.Cancelled[b] += part[cancelled][b]
		}
	}
	for lane, n := range nodes {
		l := Lane{Busy: make([]Number, laneBins)}
		if n > 0 && int(n) <= len(v.d.Nodes) {
			l.Node = v.d.Nodes[n-1]
		}
		for _, part := range busy {
			for b, f := range part[lane] {
				l.Busy[b] += Number(f)
			}
		}
		t.Lanes = append(t.Lanes, l)
	}
	slices.SortFunc(t.Lanes, func(a, b Lane) int { return cmp.Compare(a.Node, b.Node) })
}

// bars packs trials into as few lanes as ran at the same time.
func (t *Timeline) bars(v *View, rows []int32) {
	t.Bars = &Bars{}
	free := map[uint16][]float64{} // when each lane of a node is free
	for _, r := range rows {
		start, end := float64(v.d.Started[r]), float64(v.barEnd(r))
		lanes := free[v.d.Node[r]]
		lane := slices.IndexFunc(lanes, func(f float64) bool { return f <= start+shortLane })
		if lane < 0 {
			lane = len(lanes)
			lanes = append(lanes, 0)
		}
		lanes[lane] = end
		free[v.d.Node[r]] = lanes
		node := grid.NodeID("")
		if n := int(v.d.Node[r]); n > 0 && n <= len(v.d.Nodes) {
			node = v.d.Nodes[n-1]
		}
		b := t.Bars
		b.Trial, b.Node, b.Lane = append(b.Trial, v.d.index(r)), append(b.Node, node), append(b.Lane, lane)
		b.Start, b.End = append(b.Start, Number(start)), append(b.End, Number(end))
		b.State = append(b.State, string(grid.States[v.d.State[r]-1]))
	}
}

// seconds formats a duration for a person.
func seconds(s float64) string {
	n := int64(math.Round(s))
	switch {
	case s < 100:
		return fmt.Sprintf("%.3g s", s)
	case n < 2*3600:
		return fmt.Sprintf("%d min", (n+30)/60)
	case n < 48*3600:
		return fmt.Sprintf("%d h %d min", n/3600, n%3600/60)
	}
	return fmt.Sprintf("%d d %d h", n/86400, n%86400/3600)
}

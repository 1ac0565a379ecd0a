package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/parallel"
)

// Failures groups the selected trials that failed by cause.
type Failures struct {
	Head
	Failed int64          `json:"failed"` // selected trials that failed, also those that run again
	Ended  int64          `json:"ended"`  // selected trials that ended or failed
	Edges  []Number       `json:"edges"`  // of the counts over time, seconds since the first event
	Groups []FailureGroup `json:"groups"` // the largest first
}

// FailureGroup is one cause.
type FailureGroup struct {
	Cause     uint8      `json:"cause"` // for the filter
	Class     grid.Class `json:"class"`
	Signature string     `json:"signature"`
	Owner     string     `json:"owner"`
	Text      string     `json:"text"` // what the class means
	Hint      string     `json:"hint"`
	Count     int64      `json:"count"`    // of selected trials
	Attempts  int64      `json:"attempts"` // of the whole sweep that failed so, also of trials that ran again
	First     Number     `json:"first"`    // seconds since the first event, when the trials ended
	Last      Number     `json:"last"`
	Trial     int64      `json:"trial"` // the newest of them
	Nodes     []NodeN    `json:"nodes"` // the first ones by count
	Over      []int64    `json:"over"`  // counts over time
	Lifts     []Lift     `json:"lifts"` // what these trials have more often than others
}

// NodeN is a number of trials on one node.
type NodeN struct {
	Node grid.NodeID `json:"node"`
	N    int64       `json:"n"`
}

// Lift is a level of a parameter, or a node, that is more frequent among the trials of a group than
// chance would explain.
type Lift struct {
	Key   string `json:"key"` // a parameter; "node" with Node for a node
	Label string `json:"label"`
	Level int    `json:"level"` // -1 for a node
	N     int64  `json:"n"`     // failures that have it
	Share Number `json:"share"` // of the failures
	Base  Number `json:"base"`  // of all trials that ended
	Lift  Number `json:"lift"`  // Share / Base
	P     Number `json:"p"`     // of Fisher's test, times the number of tests
}

const (
	timeBins    = 48
	leastLift   = 1.5
	maxP        = 0.001
	shownGroups = 50
	shownNodes  = 8
	shownLifts  = 5
)

// Failures determines what predicts each cause.
func (v *View) Failures() *Failures {
	out := &Failures{Edges: []Number{}, Groups: []FailureGroup{}}
	all, fails, last := endedAndFailed(v)
	out.Ended, out.Failed = int64(len(all)), int64(len(fails))
	byCause := map[uint8][]int32{}
	for _, r := range fails {
		byCause[v.d.Cause[r]] = append(byCause[v.d.Cause[r]], r)
	}
	for i := range timeBins + 1 {
		out.Edges = append(out.Edges, Number(last*float64(i)/timeBins))
	}
	counts := attributes(v, all)
	for id, rows := range byCause {
		out.Groups = append(out.Groups, newFailureGroup(v, id, rows, counts, int64(len(all)), last))
	}
	slices.SortFunc(out.Groups, func(a, b FailureGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause))
	})
	out.Groups = out.Groups[:min(len(out.Groups), shownGroups)]
	sentence := "No trial has failed."
	if len(out.Groups) > 0 {
		g := &out.Groups[0]
		name := g.Signature
		if name == "" {
			name = g.Text
		}
		sentence = fmt.Sprintf("%d of %d trials failed; %d of them: %s", out.Failed, out.Ended, g.Count, name)
		if len(g.Lifts) > 0 {
			l := &g.Lifts[0]
			sentence += fmt.Sprintf(" (%.0f %% have %s=%s, expected %.0f %%)", 100*float64(l.Share), l.Key, l.Label,
				100*float64(l.Base))
		}
		sentence += "."
	}
	out.Head = v.head(sentence)
	return out
}

// end returns when a trial ended, according to its start and the duration that its node measured.
func (t *trials) end(r int32) float32 {
	if wall := t.d.Wall[r]; wall == wall {
		return t.d.Started[r] + wall
	}
	return t.d.Started[r]
}

// endedAndFailed returns the selected trials that ended or failed, those of them that failed,
// including those that run again, and the time at which the last of all selected trials ended.
func endedAndFailed(v *View) (all, fails []int32, last float64) {
	spans := parallel.Split(len(v.rows), leastRows)
	all = make([]int32, len(v.rows))
	counts, failing, latest := make([]int, len(spans)), make([][]int32, len(spans)), make([]float32, len(spans))
	parallel.Each(len(spans), func(i int) {
		n := spans[i].Lo
		for _, r := range v.rows[spans[i].Lo:spans[i].Hi] {
			if end := v.end(r); end > latest[i] {
				latest[i] = end
			}
			fails := v.d.Cause[r] > 0 && v.d.State[r] != running
			if fails {
				failing[i] = append(failing[i], r)
			}
			if fails || ended(v.d.State[r]) {
				all[n] = r
				n++
			}
		}
		counts[i] = n - spans[i].Lo
	})
	return joined(all, spans, counts), slices.Concat(failing...), float64(slices.Max(latest))
}

// attributes counts rows by axis and level, and by node as the last axis.
func attributes(v *View, rows []int32) [][]int64 {
	counts := make([][]int64, len(v.axes)+1)
	nodes := make([]int64, len(v.d.Nodes)+1)
	for _, r := range rows {
		if n := v.d.Node[r]; int(n) < len(nodes) {
			nodes[n]++
		}
	}
	counts[len(v.axes)] = nodes
	for a := range v.axes {
		counts[a] = make([]int64, len(v.axes[a].Levels))
	}
	joints := cover(v.factors(maxLevels), alone(len(v.axes)))
	parts := make([][][]int32, len(joints))
	eachCell(joints, rows, func(j, n int) {
		for range n {
			parts[j] = append(parts[j], make([]int32, joints[j].size))
		}
	}, func(j, part int, rows, cells []int32) {
		sums := parts[j][part]
		for _, at := range cells {
			sums[at]++
		}
	})
	for j := range joints {
		for _, sums := range parts[j] {
			for at, n := range sums {
				for _, a := range joints[j].places {
					counts[a][joints[j].level(at, a)] += int64(n)
				}
			}
		}
	}
	return counts
}

func newFailureGroup(v *View, id uint8, rows []int32, counts [][]int64, total int64, last float64) FailureGroup {
	g := FailureGroup{Cause: id, Count: int64(len(rows)), Over: make([]int64, timeBins), Nodes: []NodeN{},
		Lifts: []Lift{}, First: Number(math.NaN())}
	if i := slices.IndexFunc(v.d.Causes, func(c Cause) bool { return c.ID == id }); i >= 0 {
		c := &v.d.Causes[i]
		f := grid.FailureOf(c.Class)
		g.Class, g.Signature, g.Attempts, g.Owner, g.Text, g.Hint = c.Class, c.Signature, c.Attempts,
			string(f.Owner), f.Cause, f.Hint
	} else {
		g.Text = "other causes"
	}
	g.Last = Number(math.Inf(-1))
	for _, r := range rows {
		e := float64(v.end(r))
		if !finite(e) {
			continue
		}
		g.Over[min(timeBins-1, max(0, int(e/max(last, 1e-9)*timeBins)))]++
		if !(float64(g.First) <= e) {
			g.First = Number(e)
		}
		if e > float64(g.Last) {
			g.Last, g.Trial = Number(e), v.d.index(r)
		}
	}
	own := attributes(v, rows)
	for n, k := range own[len(v.axes)] {
		if k > 0 && n > 0 {
			g.Nodes = append(g.Nodes, NodeN{v.d.Nodes[n-1], k})
		}
	}
	slices.SortFunc(g.Nodes, func(a, b NodeN) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Node, b.Node)) })
	g.Nodes = g.Nodes[:min(len(g.Nodes), shownNodes)]
	tests := 0
	for a := range counts {
		tests += len(counts[a])
	}
	for a := range counts {
		for l, k := range own[a] {
			if lift, ok := liftOf(k, int64(len(rows)), counts[a][l], total, tests); ok {
				lift.Key, lift.Level = "node", -1
				if a < len(v.axes) {
					lift.Key, lift.Label, lift.Level = v.axes[a].Key, v.axes[a].Levels[l].Label, l
				} else if l > 0 {
					lift.Label = string(v.d.Nodes[l-1])
				} else {
					continue // without a node
				}
				g.Lifts = append(g.Lifts, lift)
			}
		}
	}
	slices.SortStableFunc(g.Lifts, func(a, b Lift) int {
		return cmp.Or(cmp.Compare(a.P, b.P), cmp.Compare(b.Share, a.Share))
	})
	g.Lifts = g.Lifts[:min(len(g.Lifts), shownLifts)]
	return g
}

// liftOf reports whether a level is more frequent than chance would explain: k of n failures have
// it, and so do have of total trials.
func liftOf(k, n, have, total int64, tests int) (Lift, bool) {
	if k == 0 || n == 0 || have == total {
		return Lift{}, false
	}
	l := Lift{N: k, Share: Number(float64(k) / float64(n)), Base: Number(float64(have) / float64(total))}
	if l.Lift = l.Share / l.Base; l.Lift < leastLift {
		return l, false
	}
	l.P = Number(min(1, fisher(k, n, have, total)*float64(tests)))
	return l, l.P < maxP
}

// fisher returns the probability that k or more of n trials drawn from total have a property that
// have of them have: the upper tail of the hypergeometric distribution.
func fisher(k, n, have, total int64) float64 {
	choose := func(n, k int64) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(k + 1))
		c, _ := math.Lgamma(float64(n - k + 1))
		return a - b - c
	}
	all, sum := choose(total, n), 0.0
	for ; k <= min(n, have); k++ {
		if n-k > total-have {
			continue
		}
		p := math.Exp(choose(have, k) + choose(total-have, n-k) - all)
		if sum += p; p <= sum*1e-12 {
			break // each further term is smaller
		}
	}
	return min(1, sum)
}

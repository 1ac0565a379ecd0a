package chart

import (
	"fmt"
	"math"
	"slices"

	"mlfnode/grid/moments"
	"mlfnode/node/parallel"
)

// Marginals shows the value for each level of each parameter, averaged over all others, and how
// much of it is done.
type Marginals struct {
	Head
	Summary
	Axes   []Marginal `json:"axes"`
	Hidden []string   `json:"hidden"` // parameters that have one value
}

// Marginal is one parameter; its lists have an entry for each level.
type Marginal struct {
	Axis
	N       []int64  `json:"n"` // trials with a finite value
	Mean    []Number `json:"mean"`
	SD      []Number `json:"sd"`
	Half    []Number `json:"half"` // half the width of the 95 % confidence interval of the mean
	Best    []Number `json:"best"`
	Rank    []Number `json:"rank"`    // mean, from 0, the best
	Running []int64  `json:"running"` // trials
	Done    []int64  `json:"done"`    // trials that ended
	Failed  []int64  `json:"failed"`  // trials
}

// Marginals sums up the selected trials by the levels of each parameter.
func (v *View) Marginals() *Marginals {
	m := &Marginals{Axes: make([]Marginal, len(v.axes)), Hidden: append([]string{}, v.hidden...)}
	g := v.margins()
	sums := sumMargins(v, g)
	m.Summary = summaryOf(v, sums[0])
	for a := range v.axes {
		j := slices.IndexFunc(g.joints, func(j *joint) bool { return has(j.places, -1, a) })
		m.Axes[a] = newMarginal(v, a, g.joints[j], sums[j])
	}
	sentence := "No trial has a value yet."
	if m.N > 0 {
		sentence = fmt.Sprintf("%d of %d trials have ended; best %s %s in trial %d, mean %s.",
			v.d.Done, v.d.Space.Count(), v.d.Name, show(float64(m.Best)), m.Trial, show(float64(m.Mean)))
	}
	m.Head = v.head(sentence)
	return m
}

// margins are joints that together contain each axis, with the combination of each row in them.
// All selections from a view share them.
type margins struct {
	joints []*joint
	cells  [][]uint16 // by joint
}

func newMargins(v *View) *margins {
	factors := v.factors(maxLevels)
	g := &margins{joints: cover(factors, alone(len(factors)))}
	if len(g.joints) == 0 { // no axis has more than one value
		g.joints = []*joint{{size: 1}}
	}
	for range g.joints {
		g.cells = append(g.cells, make([]uint16, len(v.d.State)))
	}
	eachCell(g.joints, v.rows, func(int, int) {}, func(j, _ int, rows, cells []int32) {
		for i, r := range rows {
			g.cells[j][r] = uint16(cells[i])
		}
	})
	return g
}

// alone pairs each of some factors with itself.
func alone(n int) (pairs [][2]int) {
	for k := range n {
		pairs = append(pairs, [2]int{k, k})
	}
	return pairs
}

// marginSum sums up some trials.
type marginSum struct {
	moments.Moments
	rank               float64
	best               float32
	first              int32 // row with the best value
	done, runs, failed int32
}

// sumMargins sums up the selected trials by the combinations of each joint.
func sumMargins(v *View, g *margins) [][]marginSum {
	ranks := v.ranks()
	spans := parallel.Split(len(v.rows), leastRows)
	parts := make([][][]marginSum, len(spans))
	parallel.Each(len(spans), func(i int) {
		sums := make([][]marginSum, len(g.joints))
		for j := range sums {
			sums[j] = make([]marginSum, g.joints[j].size)
		}
		for _, r := range v.rows[spans[i].Lo:spans[i].Hi] {
			state, f, rank := v.d.State[r], v.value[r], float64(ranks[r])
			for j, cells := range g.cells {
				s := &sums[j][cells[r]]
				switch {
				case ended(state):
					if s.done++; state == failed {
						s.failed++
					}
				case state == running:
					s.runs++
				}
				if finite(float64(f)) {
					if s.N == 0 || v.better(f, s.best) {
						s.best, s.first = f, r
					}
					s.Add(float64(f))
					s.rank += rank
				}
			}
		}
		parts[i] = sums
	})
	for _, sums := range parts[1:] {
		for j := range sums {
			for i := range sums[j] {
				v.merge(&parts[0][j][i], &sums[j][i])
			}
		}
	}
	return parts[0]
}

func (t *trials) merge(s, more *marginSum) {
	if more.N > 0 && (s.N == 0 || t.better(more.best, s.best) || more.best == s.best && more.first < s.first) {
		s.best, s.first = more.best, more.first
	}
	s.Merge(&more.Moments)
	s.rank += more.rank
	s.done, s.runs, s.failed = s.done+more.done, s.runs+more.runs, s.failed+more.failed
}

// summaryOf is the summary of the trials of all sums.
func summaryOf(v *View, sums []marginSum) Summary {
	var all marginSum
	for i := range sums {
		v.merge(&all, &sums[i])
	}
	s := Summary{N: all.N, Missing: int64(all.done) - all.N, Mean: Number(all.Mean()), SD: Number(all.SD()),
		Best: Number(math.NaN()), Trial: -1}
	if s.N > 0 {
		s.Best, s.Trial = Number(all.best), v.d.index(all.first)
	}
	return s
}

// newMarginal extracts one axis from the sums of a joint.
func newMarginal(v *View, a int, j *joint, sums []marginSum) Marginal {
	n := len(v.axes[a].Levels)
	m := Marginal{
		Axis: v.axes[a].Axis, N: make([]int64, n), Mean: make([]Number, n), SD: make([]Number, n),
		Half: make([]Number, n), Best: make([]Number, n),
		Rank: make([]Number, n), Done: make([]int64, n), Running: make([]int64, n), Failed: make([]int64, n),
	}
	levels := make([]marginSum, n)
	for i := range sums {
		v.merge(&levels[j.level(i, a)], &sums[i])
	}
	for l := range levels {
		s := &levels[l]
		if s.N == 0 {
			s.best = float32(math.NaN())
		}
		m.N[l], m.Best[l], m.Rank[l] = s.N, Number(s.best), Number(s.rank/float64(s.N))
		m.Mean[l], m.SD[l], m.Half[l] = Number(s.Mean()), Number(s.SD()), Number(s.Half())
		m.Done[l], m.Running[l], m.Failed[l] = int64(s.done), int64(s.runs), int64(s.failed)
	}
	return m
}

// countStates counts the selected trials by the levels of an axis.
func countStates(v *View, a int) (done, runs, failures []int64) {
	n := len(v.axes[a].Levels)
	var counts [maxLevels][8]int64
	levels := v.levels[a]
	for _, r := range v.rows {
		counts[levels[r]%maxLevels][v.d.State[r]&7]++
	}
	done, runs, failures = make([]int64, n), make([]int64, n), make([]int64, n)
	for l := range n {
		runs[l], failures[l] = counts[l][running], counts[l][failed]
		for state := range uint8(8) {
			if ended(state) {
				done[l] += counts[l][state]
			}
		}
	}
	return done, runs, failures
}

// Coverage shows how much of the sweep is done, by the levels of each parameter and along the
// indexes. The only filter that it applies is that of the view.
type Coverage struct {
	Head
	Axes []Covered `json:"axes"`
	// the share that is done of each of some equal parts of all indexes; null where it was not
	// looked at
	Strip []Number `json:"strip"`
}

// Covered is one parameter; its lists have an entry for each level.
type Covered struct {
	Axis
	Done    []int64 `json:"done"`
	Running []int64 `json:"running"`
}

// strip is the number of parts of a strip.
const strip = 256

// Coverage counts the selected trials that have ended or are running.
func (v *View) Coverage() *Coverage {
	c := &Coverage{Axes: make([]Covered, len(v.axes))}
	total := int64(0)
	parallel.Each(len(v.axes), func(a int) {
		done, runs, _ := countStates(v, a)
		c.Axes[a] = Covered{Axis: v.axes[a].Axis, Done: done, Running: runs}
	})
	count := v.d.Space.Count()
	n := min(strip, count)
	done := make([]int64, n)
	for _, r := range v.rows {
		if ended(v.d.State[r]) {
			done[int64(float64(v.d.index(r))/float64(count)*float64(n))]++
			total++
		}
	}
	for i, k := range done {
		lo, hi := float64(count)*float64(i)/float64(n), float64(count)*float64(i+1)/float64(n)
		share := Number(float64(k) / max(1, math.Ceil(hi)-math.Ceil(lo)))
		if v.d.Stride > 1 && k == 0 {
			share = Number(math.NaN())
		}
		c.Strip = append(c.Strip, Number(math.Min(1, float64(share)*float64(max(1, v.d.Stride)))))
	}
	c.Head = v.head(fmt.Sprintf("%d of %d trials have ended.", v.d.Done, count))
	return c
}

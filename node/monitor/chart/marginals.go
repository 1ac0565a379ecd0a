package chart

import (
	"fmt"
	"math"

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
	m.Summary = v.summary()
	factors := v.factors(maxLevels)
	joints := cover(factors, alone(len(factors)))
	sums := v.marginSums(joints)
	for a := range v.axes {
		for j := range joints {
			if has(joints[j].places, -1, a) {
				m.Axes[a] = v.marginal(a, joints[j], sums[j])
				break
			}
		}
	}
	sentence := "No trial has a value yet."
	if m.N > 0 {
		sentence = fmt.Sprintf("%d of %d trials have ended; best %s %s in trial %d, mean %s.",
			v.d.Done, v.d.Space.Count(), v.d.Name, show(float64(m.Best)), m.Trial, show(float64(m.Mean)))
	}
	m.Head = v.head(sentence)
	return m
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
	done, runs, failed int32
}

// marginSums sums up the selected trials by the combinations of some joints.
func (v *View) marginSums(joints []*joint) [][]marginSum {
	ranks := v.ranks()
	parts := make([][][]marginSum, len(joints))
	eachCell(joints, v.rows, func(j, n int) {
		for range n {
			parts[j] = append(parts[j], make([]marginSum, joints[j].size))
		}
	}, func(j, part int, rows, cells []int32) {
		sums := parts[j][part]
		for i, r := range rows {
			s := &sums[cells[i]]
			switch state := v.d.State[r]; {
			case ended(state):
				if s.done++; state == failed {
					s.failed++
				}
			case state == running:
				s.runs++
			}
			if f := v.value[r]; finite(float64(f)) {
				if s.N == 0 || v.better(f, s.best) {
					s.best = f
				}
				s.Add(float64(f))
				s.rank += float64(ranks[r])
			}
		}
	})
	all := make([][]marginSum, len(joints))
	for j := range joints {
		all[j] = parts[j][0]
		for _, sums := range parts[j][1:] {
			for i := range sums {
				v.merge(&all[j][i], &sums[i])
			}
		}
	}
	return all
}

func (v *View) merge(s, more *marginSum) {
	if more.N > 0 && (s.N == 0 || v.better(more.best, s.best)) {
		s.best = more.best
	}
	s.Merge(&more.Moments)
	s.rank += more.rank
	s.done, s.runs, s.failed = s.done+more.done, s.runs+more.runs, s.failed+more.failed
}

// marginal extracts one axis from the sums of a joint.
func (v *View) marginal(a int, j *joint, sums []marginSum) Marginal {
	n := len(v.axes[a].Levels)
	m := Marginal{
		Axis: v.axes[a].Axis, N: make([]int64, n), Mean: make([]Number, n), SD: make([]Number, n), Half: make([]Number, n), Best: make([]Number, n),
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

// states counts the selected trials by the levels of an axis.
func (v *View) states(a int) (done, runs, failures []int64) {
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
	Axes  []Covered `json:"axes"`
	Strip []Number  `json:"strip"` // the share that is done of each of some equal parts of all indexes; null where it was not looked at
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
		done, runs, _ := v.states(a)
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

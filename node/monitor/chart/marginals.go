package chart

import (
	"fmt"
	"math"

	"mlfnode/grid/moments"
	"mlfnode/node/parallel"
)

// Marginals is what each level of each parameter gives, averaged over all others, and how far it is done.
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
	ranks := v.ranks()
	parallel.Each(len(v.axes)+1, func(a int) {
		if a == len(v.axes) {
			m.Summary = v.summary()
			return
		}
		m.Axes[a] = v.marginal(a, ranks)
	})
	sentence := "No trial has a value yet."
	if m.N > 0 {
		sentence = fmt.Sprintf("%d of %d trials have ended; best %s %s in trial %d, mean %s.",
			v.d.Done, v.d.Space.Count(), v.d.Name, show(float64(m.Best)), m.Trial, show(float64(m.Mean)))
	}
	m.Head = v.head(sentence)
	return m
}

func (v *View) marginal(a int, ranks []float32) Marginal {
	n := len(v.axes[a].Levels)
	m := Marginal{
		Axis: v.axes[a].Axis, N: make([]int64, n), Mean: make([]Number, n), SD: make([]Number, n), Half: make([]Number, n), Best: make([]Number, n),
		Rank: make([]Number, n),
	}
	m.Done, m.Running, m.Failed = v.states(a)
	all, rank := make([]moments.Moments, n), make([]float64, n)
	best := make([]float32, n)
	for l := range best {
		best[l] = float32(math.NaN())
	}
	levels := v.levels[a]
	for _, r := range v.rows {
		f := v.value[r]
		if !finite(float64(f)) {
			continue
		}
		l := levels[r]
		all[l].Add(float64(f))
		rank[l] += float64(ranks[r])
		if best[l] != best[l] || v.better(f, best[l]) {
			best[l] = f
		}
	}
	for l := range n {
		m.N[l], m.Best[l], m.Rank[l] = all[l].N, Number(best[l]), Number(rank[l]/float64(all[l].N))
		m.Mean[l], m.SD[l], m.Half[l] = Number(all[l].Mean()), Number(all[l].SD()), Number(all[l].Half())
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

// Coverage is how far the sweep is done, by the levels of each parameter and along the indexes. It takes no filter into account but
// that of the view.
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

// strip is how many parts a strip has.
const strip = 256

// Coverage counts the selected trials that have ended or run.
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

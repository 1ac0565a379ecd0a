package chart

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"mlfnode/grid/moments"
	"mlfnode/node/parallel"
)

// Importance is the share of the variance of a value that each parameter explains.
type Importance struct {
	Head
	Raw   bool            `json:"raw"` // of the values themselves, not of their ranks
	N     int64           `json:"n"`   // trials with a value
	Axes  []AxisShare     `json:"axes"`
	Pairs []PairShare     `json:"pairs"` // the strongest interactions
	Rest  Number          `json:"rest"`  // the share of higher orders and noise
	PED   *BestImportance `json:"best,omitempty"`
}

// AxisShare is one parameter.
type AxisShare struct {
	Key   string `json:"key"`
	Share Number `json:"share"`         // of the variance; null where the data can't tell
	SE    Number `json:"se"`            // the standard error of Share; null as Share is
	Best  Number `json:"best"`          // its share of what tells the best trials from the others
	Why   string `json:"why,omitempty"` // Share is null
}

// PairShare is the interaction of two parameters.
type PairShare struct {
	X     string `json:"x"`
	Y     string `json:"y"`
	Share Number `json:"share"`
}

// BestImportance states which trials AxisShare.Best is about.
type BestImportance struct {
	Share Number `json:"share"` // of the trials
	N     int64  `json:"n"`
}

const (
	bestShare   = 0.1
	leastValues = 5   // that a level needs to count as seen
	leastLevels = 2   // that must be seen
	confounded  = 0.3 // Cramér's V
	shownPairs  = 10
	fittedRows  = 4_000_000 // rows times pairs of axes in one pass
)

// table sums up a value by the levels of axes and of pairs of axes.
type table struct {
	n     float64
	mean  float64
	v     float64 // variance
	one   [][]cell
	two   [][][]cell // [a][b], b < a: by level of a, then of b
	sizes []int
}

type cell struct{ n, sum float64 }

// tabulate sums up rows with their values y.
func tabulate(v *View, rows []int32, y []float32) *table {
	t := &table{}
	for a := range v.axes {
		n := len(v.axes[a].Levels)
		t.sizes = append(t.sizes, n)
		t.one = append(t.one, make([]cell, n))
		two := make([][]cell, a)
		for b := range two {
			two[b] = make([]cell, n*t.sizes[b])
		}
		t.two = append(t.two, two)
	}
	levels := make([][]uint8, len(v.axes)) // of rows from anywhere, gathered side by side
	parallel.Each(len(levels), func(a int) {
		levels[a] = make([]uint8, len(rows))
		for i, r := range rows {
			levels[a][i] = v.levels[a][r]
		}
	})
	var m moments.Moments
	parallel.Each(len(v.axes)+1, func(a int) {
		if a == len(v.axes) {
			for _, f := range y {
				m.Add(float64(f))
			}
			return
		}
		one := t.one[a]
		for i, l := range levels[a] {
			one[l].n++
			one[l].sum += float64(y[i])
		}
		for b, two := range t.two[a] {
			for i, l := range levels[a] {
				c := &two[int(l)*t.sizes[b]+int(levels[b][i])]
				c.n++
				c.sum += float64(y[i])
			}
		}
	})
	t.n, t.mean, t.v = float64(m.N), m.Mean(), m.M2()/max(1, float64(m.N))
	return t
}

// fittedSample returns the rows that have a value, or a part of them if there are very many, and
// their values or ranks. Of consecutive rows in the order of values it picks one, so that the part
// has the same distribution of values as all rows.
func fittedSample(v *View, raw bool) (rows []int32, y []float32, all int64) {
	sorted, values := v.order()
	if raw { // infinite ones are worse than all others
		sorted = sorted[:sort.Search(len(sorted), func(n int) bool { return !finite(float64(values[n])) })]
	}
	pairs := len(v.axes) * (len(v.axes) + 1) / 2
	places := oneOfEach(len(sorted), max(1, (len(sorted)*pairs+fittedRows-1)/fittedRows))
	rows, y = make([]int32, len(places)), make([]float32, len(places))
	rank, behind := float32(0), 0
	for i, place := range places {
		rows[i] = sorted[place]
		switch {
		case raw:
			y[i] = values[place]
			continue
		case place >= behind:
			rank, behind = rankOf(v, place)
		}
		y[i] = rank
	}
	return rows, y, int64(len(sorted))
}

// rankOf returns the rank of the row at a position in the order, and the position after all rows
// with the same value.
func rankOf(v *View, place int) (rank float32, behind int) {
	_, values := v.order()
	value := values[place]
	lo, hi := place, place+1
	if lo > 0 && values[lo-1] == value {
		lo = sort.Search(lo, func(n int) bool { return values[n] == value })
	}
	if hi < len(values) && values[hi] == value {
		hi += sort.Search(len(values)-hi, func(n int) bool { return values[hi+n] != value })
	}
	return float32(lo+hi-1) / 2 / float32(max(1, len(values)-1)), hi
}

// oneOfEach picks one of every step consecutive numbers below n, at random but reproducibly: at
// even distances, rows could have the same few values of an axis with the same period.
func oneOfEach(n, step int) []int {
	random := rand.New(rand.NewPCG(uint64(n), uint64(step)))
	some := make([]int, 0, n/step+1)
	for lo := 0; lo < n; lo += step {
		if at := lo + random.IntN(step); at < n {
			some = append(some, at)
		}
	}
	return some
}

func (c *cell) mean() float64 { return c.sum / c.n }

// main returns the variance between the levels of an axis.
func (t *table) main(a int) (variance float64) {
	for l := range t.one[a] {
		if c := &t.one[a][l]; c.n > 0 {
			d := c.mean() - t.mean
			variance += c.n / t.n * d * d
		}
	}
	return variance
}

// pair returns the variance of the interaction of two axes, b < a.
func (t *table) pair(a, b int) (variance float64) {
	for i := range t.two[a][b] {
		if c := &t.two[a][b][i]; c.n > 0 {
			d := c.mean() - t.one[a][i/t.sizes[b]].mean() - t.one[b][i%t.sizes[b]].mean() + t.mean
			variance += c.n / t.n * d * d
		}
	}
	return variance
}

// seen counts the levels of an axis that have values.
func (t *table) seen(a int, least float64) (levels int) {
	for l := range t.one[a] {
		if t.one[a][l].n >= least {
			levels++
		}
	}
	return levels
}

// cramer returns Cramér's V of the counts of two axes, b < a: 0 if the levels of one say nothing
// about those of the other, up to 1. It is corrected for chance, by Bergsma (2013), "A
// bias-correction for Cramér's V and Tschuprow's T": otherwise, levels with few trials each look as
// if they were related.
func (t *table) cramer(a, b int) float64 {
	chi := 0.0
	for i := range t.two[a][b] {
		expected := t.one[a][i/t.sizes[b]].n * t.one[b][i%t.sizes[b]].n / t.n
		if expected > 0 {
			d := t.two[a][b][i].n - expected
			chi += d * d / expected
		}
	}
	na, nb, n := float64(t.seen(a, 1)), float64(t.seen(b, 1)), t.n-1
	least := min(na-(na-1)*(na-1)/n, nb-(nb-1)*(nb-1)/n) - 1
	if n <= 0 || least <= 0 {
		return 0
	}
	return math.Sqrt(max(0, chi/t.n-(na-1)*(nb-1)/n) / least)
}

// Importance is the functional analysis of variance of Hutter, Hoos and Leyton-Brown (2014), on the
// true table of values instead of a forest, minus what noise would explain (epsilon squared). It
// uses ranks unless raw, so that diverged trials do not dominate. What distinguishes the best tenth
// from the others is determined by the method of Watanabe et al. (2023), for levels.
func (v *View) Importance(raw bool) *Importance {
	out := &Importance{Raw: raw, Axes: []AxisShare{}, Pairs: []PairShare{}, Rest: Number(math.NaN())}
	rows, y, all := fittedSample(v, raw)
	out.N = all
	t := tabulate(v, rows, y)
	sorted, _ := v.order()
	top := int(math.Ceil(bestShare * float64(len(sorted))))
	best := bestShares(v, t, sorted[:top])
	mains := make([]float64, len(v.axes))
	noise := t.v
	for a := range v.axes {
		mains[a] = t.main(a)
		noise -= mains[a]
	}
	noise = max(0, noise)
	explained := 0.0
	for a, axis := range v.axes {
		s := AxisShare{Key: axis.Key, Share: Number(math.NaN()), SE: Number(math.NaN()), Best: best[a],
			Why: untold(v, t, a)}
		if s.Why == "" {
			freedom := float64(t.seen(a, 1) - 1)
			f := max(0, mains[a]-freedom*noise/t.n) / t.v
			// The sum of squares of the levels has a noncentral chi-squared distribution.
			rest := noise / t.v
			s.Share, s.SE = Number(f), Number(math.Sqrt(2*freedom*rest*rest+4*t.n*f*rest)/t.n)
			explained += f
		}
		out.Axes = append(out.Axes, s)
	}
	explained += addPairShares(v, t, out, noise)
	if t.v > 0 {
		out.Rest = Number(max(0, 1-explained))
	}
	if top > 0 {
		out.PED = &BestImportance{Share: bestShare, N: int64(top)}
	}
	slices.SortStableFunc(out.Axes, func(a, b AxisShare) int { return cmp.Compare(orLess(b.Share), orLess(a.Share)) })
	sentence := "The values that are there do not tell which parameter matters."
	if len(out.Axes) > 0 && out.Axes[0].Share >= 0.005 {
		sentence = fmt.Sprintf("%s explains %.0f %% of the variance of %s", out.Axes[0].Key,
			100*float64(out.Axes[0].Share), v.d.Name)
		if len(out.Axes) > 1 && out.Axes[1].Share >= 0.005 {
			sentence += fmt.Sprintf(", %s %.0f %%", out.Axes[1].Key, 100*float64(out.Axes[1].Share))
		}
		sentence += "."
	}
	out.Head = v.head(sentence)
	return out
}

func orLess(n Number) float64 {
	if math.IsNaN(float64(n)) {
		return -1
	}
	return float64(n)
}

// untold returns the reason why the data can't determine the share of an axis, or "" if it can.
func untold(v *View, t *table, a int) string {
	switch {
	case t.n == 0:
		return "no trial has a value"
	case t.v == 0:
		return "all values are equal"
	case t.seen(a, 1) == 1:
		return "only one value has run"
	case t.seen(a, leastValues) < leastLevels:
		return "too few trials of each value have run"
	}
	for b := range v.axes {
		if b != a && t.seen(b, leastValues) >= leastLevels && t.cramer(max(a, b), min(a, b)) > confounded {
			return fmt.Sprintf("%s and %s have run together only", v.axes[a].Key, v.axes[b].Key)
		}
	}
	return ""
}

// addPairShares lists the strongest interactions and returns the share of all.
func addPairShares(v *View, t *table, out *Importance, noise float64) (sum float64) {
	for a := range v.axes {
		for b := range a {
			if out.Axes[a].Why != "" || out.Axes[b].Why != "" {
				continue
			}
			cells := 0
			for i := range t.two[a][b] {
				if t.two[a][b][i].n > 0 {
					cells++
				}
			}
			freedom := float64(max(0, cells-t.seen(a, 1)-t.seen(b, 1)+1))
			if share := (t.pair(a, b) - freedom*noise/t.n) / t.v; share > 0.001 {
				sum += share
				out.Pairs = append(out.Pairs, PairShare{v.axes[b].Key, v.axes[a].Key, Number(share)})
			}
		}
	}
	slices.SortStableFunc(out.Pairs, func(a, b PairShare) int { return cmp.Compare(b.Share, a.Share) })
	out.Pairs = out.Pairs[:min(len(out.Pairs), shownPairs)]
	return sum
}

// bestShares sets the share of each axis in what distinguishes the best rows from all.
func bestShares(v *View, all *table, best []int32) []Number {
	shares := make([]Number, len(v.axes))
	parallel.Each(len(v.axes), func(a int) {
		levels := v.levels[a]
		counts := make([]int, len(v.axes[a].Levels))
		for _, r := range best {
			counts[levels[r]]++
		}
		for l, n := range counts {
			if q := all.one[a][l].n / all.n; q > 0 {
				d := float64(n)/float64(len(best))/q - 1
				shares[a] += Number(q * d * d)
			}
		}
	})
	sum := 0.0
	for _, share := range shares {
		sum += float64(share)
	}
	for a := range shares {
		shares[a] /= Number(sum) // NaN if nothing distinguishes them
	}
	return shares
}

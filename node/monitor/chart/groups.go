package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"mlfnode/grid/moments"
)

// Groups are sets of selected trials that differ only in some parameters, such as a seed.
type Groups struct {
	Head
	Over   []string `json:"over"`
	Axes   []Axis   `json:"axes"`   // the others
	Total  int64    `json:"total"`  // groups with a value
	Levels [][]int  `json:"levels"` // by axis, of each group shown
	N      []int64  `json:"n"`
	Mean   []Number `json:"mean"`
	SD     []Number `json:"sd"`
	Half   []Number `json:"half"` // half the width of the 95 % confidence interval of the mean; null for one trial
	Best   []Number `json:"best"`
	Trial  []int64  `json:"trial"` // the best one of the group

	Lucky *Lucky `json:"lucky,omitempty"`
	Equal int    `json:"equal"` // groups after the first one of those shown whose intervals reach its mean
}

// Lucky is the best single trial if its group is not the best one.
type Lucky struct {
	Trial int64  `json:"trial"`
	Value Number `json:"value"`
	Mean  Number `json:"mean"` // of its group
	Half  Number `json:"half"`
	N     int64  `json:"n"`
	Place int    `json:"place"` // of its group, from 1
}

// maxGroups bounds the groups that are shown.
const maxGroups = 200

// group sums up one group.
type group struct {
	moments.Moments
	best  float32
	trial int32
}

// maxCombinations bounds the combinations of levels that distinguish groups, and those for which a
// table locates the group.
const (
	maxCombinations   = 1 << 60
	tableCombinations = 1 << 22
)

// Groups averages over parameters. It orders groups by the worse bound of the confidence interval
// of their mean, or by the mean. Levels of long axes count as one value.
func (v *View) Groups(over []string, byMean bool) (*Groups, error) {
	g := &Groups{Over: over, Axes: []Axis{}, Levels: [][]int{}, N: []int64{}, Mean: []Number{}, SD: []Number{},
		Half: []Number{}, Best: []Number{}, Trial: []int64{}}
	for i, key := range over {
		if slices.Contains(over[:i], key) {
			return nil, &Error{fmt.Sprintf("the parameter %s is named twice", key), "name each parameter once"}
		}
		if slices.Contains(v.hidden, key) {
			continue
		}
		if _, err := v.axisOf(key); err != nil {
			return nil, err
		}
	}
	var kept []int
	for a := range v.axes {
		if !slices.Contains(over, v.axes[a].Key) {
			kept = append(kept, a)
		}
	}
	all, err := groupBy(v, kept)
	if err != nil {
		return nil, err
	}
	sign := 1.0
	if v.d.Maximize {
		sign = -1
	}
	score := func(p *group) float64 {
		half := p.Half()
		if byMean || math.IsNaN(half) {
			half = 0
			if !byMean {
				return math.Inf(1) // a single trial says nothing about the certainty of its mean
			}
		}
		return sign*p.Mean() + half
	}
	slices.SortFunc(all, func(a, b *group) int {
		return cmp.Or(cmp.Compare(score(a), score(b)), cmp.Compare(sign*a.Mean(), sign*b.Mean()),
			cmp.Compare(a.trial, b.trial))
	})
	g.Total = int64(len(all))
	for _, a := range kept {
		g.Axes = append(g.Axes, v.axes[a].Axis)
		g.Levels = append(g.Levels, []int{})
	}
	for i, p := range all[:min(len(all), maxGroups)] {
		for k := range kept {
			g.Levels[k] = append(g.Levels[k], int(v.levels[kept[k]][p.trial]))
		}
		g.N, g.Mean, g.SD, g.Half = append(g.N, p.N), append(g.Mean, Number(p.Mean())), append(g.SD, Number(p.SD())),
			append(g.Half, Number(p.Half()))
		g.Best, g.Trial = append(g.Best, Number(p.best)), append(g.Trial, v.d.index(p.trial))
		if i > 0 && sign*p.Mean()-p.Half() <= sign*all[0].Mean() {
			g.Equal++
		}
	}
	g.Lucky = luckiest(v, all)
	g.Head = v.head(g.sentence(v))
	return g, nil
}

// groupBy sums up the trials that have a value by the levels of the kept axes.
func groupBy(v *View, kept []int) ([]*group, error) {
	combinations := uint64(1)
	for _, a := range kept {
		if combinations *= uint64(len(v.axes[a].Levels)); combinations > maxCombinations/maxLevels {
			return nil, &Error{"too many parameters tell groups apart", "average over more of them"}
		}
	}
	var all []*group
	var table []int32 // indexes in all, from 1
	places := map[uint64]int32{}
	if combinations <= tableCombinations {
		table = make([]int32, combinations)
	}
	for _, r := range v.rows {
		f := v.value[r]
		if !finite(float64(f)) {
			continue
		}
		key := uint64(0)
		for _, a := range kept {
			key = key*uint64(len(v.axes[a].Levels)) + uint64(v.levels[a][r])
		}
		var place int32
		if table != nil {
			place = table[key]
		} else {
			place = places[key]
		}
		if place == 0 {
			all = append(all, &group{best: f, trial: r})
			if place = int32(len(all)); table != nil {
				table[key] = place
			} else {
				places[key] = place
			}
		}
		p := all[place-1]
		p.Add(float64(f))
		if v.better(f, p.best) {
			p.best, p.trial = f, r
		}
	}
	return all, nil
}

func luckiest(v *View, all []*group) *Lucky {
	place := 0
	for i, p := range all {
		if best := all[place]; v.better(p.best, best.best) || p.best == best.best && p.trial < best.trial {
			place = i
		}
	}
	if place < 1 {
		return nil
	}
	p := all[place]
	return &Lucky{v.d.index(p.trial), Number(p.best), Number(p.Mean()), Number(p.Half()), p.N, place + 1}
}

func (g *Groups) sentence(v *View) string {
	if g.Total == 0 {
		return "None of these trials has a value."
	}
	var at []string
	for k := range g.Axes {
		at = append(at, g.Axes[k].Key+"="+g.Axes[k].Levels[g.Levels[k][0]].Label)
	}
	text := fmt.Sprintf("Best of %d groups: mean %s %s", g.Total, v.d.Name, show(float64(g.Mean[0])))
	if !math.IsNaN(float64(g.Half[0])) {
		text += " ± " + show(float64(g.Half[0]))
	}
	if len(at) > 0 {
		text += " at " + strings.Join(at, ", ")
	}
	if g.Lucky != nil {
		text += fmt.Sprintf("; the best trial, %d, is one of a group in place %d", g.Lucky.Trial, g.Lucky.Place)
	}
	return text + "."
}

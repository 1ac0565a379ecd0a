package chart

import (
	"fmt"
	"math"
	"sort"
	"strconv"

	"mlfnode/grid/moments"
	"mlfnode/node/parallel"
)

// Histogram is the distribution of the values of the selected trials.
type Histogram struct {
	Head
	Summary
	Log       bool     `json:"log"` // bins are even in the logarithm
	Edges     []Number `json:"edges"`
	Counts    []int64  `json:"counts"`    // one less than edges
	Below     int64    `json:"below"`     // values under the first edge
	Above     int64    `json:"above"`     // values over the last edge
	Quantiles []Number `json:"quantiles"` // 0, 1, 5, 10, 25, 50, 75, 90, 95, 99 and 100 %
}

// Summary summarizes values.
type Summary struct {
	N       int64  `json:"n"`       // trials with a finite value
	Missing int64  `json:"missing"` // ended trials without one
	Mean    Number `json:"mean"`
	SD      Number `json:"sd"`
	Best    Number `json:"best"`
	Trial   int64  `json:"trial"` // with the best value; -1 for none
}

// bins is the number of bins of a histogram.
const bins = 64

var percents = [...]float64{0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1}

func summarize(v *View) Summary {
	s := Summary{Trial: -1, Best: Number(math.NaN())}
	spans := parallel.Split(len(v.rows), leastRows)
	parts, missing, best := make([]moments.Moments, len(spans)), make([]int64, len(spans)), make([]int32, len(spans))
	parallel.Each(len(spans), func(i int) {
		best[i] = -1
		for _, r := range v.rows[spans[i].Lo:spans[i].Hi] {
			if f := v.value[r]; finite(float64(f)) {
				parts[i].Add(float64(f))
				if best[i] < 0 || v.better(f, v.value[best[i]]) {
					best[i] = r
				}
			} else if ended(v.d.State[r]) {
				missing[i]++
			}
		}
	})
	var m moments.Moments
	for i := range parts {
		m.Merge(&parts[i])
		s.Missing += missing[i]
		if r := best[i]; r >= 0 && (s.Trial < 0 || v.better(v.value[r], float32(s.Best))) {
			s.Best, s.Trial = Number(v.value[r]), v.d.index(r)
		}
	}
	s.N, s.Mean, s.SD = m.N, Number(m.Mean()), Number(m.SD())
	return s
}

func finite(f float64) bool { return f-f == 0 }

// Histogram divides the values between the 1 % and 99 % quantiles into bins, and widens the range
// if nothing lies far outside.
func (v *View) Histogram() *Histogram {
	h := &Histogram{Summary: summarize(v), Edges: []Number{}, Counts: []int64{}, Quantiles: []Number{}}
	_, all := v.order()
	values := int(h.N) // the finite ones, which precede those that are worse than all
	if values == 0 {
		h.Head = v.head("None of these trials has a value.")
		return h
	}
	from := func(place int) float64 { // of the values from the lowest one on
		if v.d.Maximize {
			place = values - 1 - place
		}
		return float64(all[place])
	}
	at := func(q float64) float64 { return from(int(math.Round(q * float64(values-1)))) }
	for _, q := range percents {
		h.Quantiles = append(h.Quantiles, Number(at(q)))
	}
	lo, hi := at(0.01), at(0.99)
	if reach := hi - lo; at(0) >= lo-reach && at(1) <= hi+reach {
		lo, hi = at(0), at(1)
	}
	if hi <= lo {
		hi = math.Nextafter(float64(float32(lo)), math.Inf(1))
	}
	h.Log = lo > 0 && hi/lo > 1000
	scaled := func(f float64) float64 {
		if h.Log {
			return math.Log(f/lo) / math.Log(hi/lo) * bins
		}
		return (f - lo) / (hi - lo) * bins
	}
	h.Counts = make([]int64, bins)
	for i := range bins + 1 {
		edge := lo + (hi-lo)*float64(i)/bins
		if h.Log {
			edge = lo * math.Pow(hi/lo, float64(i)/bins)
		}
		h.Edges = append(h.Edges, Number(edge))
	}
	// of the value at position n from the lowest one: -1 below the first edge, and bins above the
	// last
	bin := func(n int) int {
		switch f := from(n); {
		case f < lo:
			return -1
		case f > hi:
			return bins
		default:
			return min(bins-1, int(scaled(f)))
		}
	}
	below := func(b int) int64 { return int64(sort.Search(values, func(n int) bool { return bin(n) >= b })) }
	h.Below, h.Above = below(0), int64(values)-below(bins)
	for b := range h.Counts {
		h.Counts[b] = below(b+1) - below(b)
	}
	h.Head = v.head(fmt.Sprintf("%s of %d trials: the middle half from %s to %s, best %s in trial %d.",
		v.d.Name, h.N, show(at(0.25)), show(at(0.75)), show(float64(h.Best)), h.Trial))
	return h
}

// show formats a number for a person.
func show(f float64) string { return strconv.FormatFloat(f, 'g', 5, 64) }

// History is the best value so far over time.
type History struct {
	Head
	Time  []Number `json:"time"` // seconds since the first event, when each new best ended
	Best  []Number `json:"best"`
	Trial []int64  `json:"trial"`
	Base  int64    `json:"base"` // the first event, microseconds since 1970
	Now   Number   `json:"now"`
}

// maxSteps bounds the steps of a History: the newest are kept.
const maxSteps = 1000

// History lists each trial that was better than all selected ones that ended before it.
func (v *View) History() *History {
	h := &History{Time: []Number{}, Best: []Number{}, Trial: []int64{}, Base: v.d.Base, Now: Number(v.d.Now)}
	ends := make([]float32, len(v.d.State)) // seconds since the first event
	for _, r := range v.rows {
		if ends[r] = v.d.Ended[r]; !ended(v.d.State[r]) {
			ends[r] = float32(math.NaN())
		}
	}
	best := float32(math.NaN())
	for _, r := range sortRows(improvements(v, ends), ends, false) {
		f := v.value[r]
		if !finite(float64(f)) || best == best && !v.better(f, best) {
			continue
		}
		best = f
		h.Time, h.Best, h.Trial = append(h.Time, Number(ends[r])), append(h.Best, Number(f)),
			append(h.Trial, v.d.index(r))
	}
	if n := len(h.Time) - maxSteps; n > 0 {
		h.Time, h.Best, h.Trial = h.Time[n:], h.Best[n:], h.Trial[n:]
	}
	sentence := "None of these trials has a value."
	if n := len(h.Best); n > 0 {
		sentence = fmt.Sprintf("Best %s so far: %s in trial %d, after %d improvements.", v.d.Name,
			show(float64(h.Best[n-1])), h.Trial[n-1], n-1)
	}
	h.Head = v.head(sentence)
	return h
}

// spells is the number of time spans that improvements uses.
const spells = 1 << 12

// improvements returns rows that may be better than all that ended before them: those in time spans
// that have a better one than all spans before. They are few, so that a History does not sort all
// rows.
func improvements(v *View, ends []float32) []int32 {
	rows := kept(v.rows, func(r int32) bool { return finite(float64(v.value[r])) && finite(float64(ends[r])) })
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	for _, r := range rows {
		lo, hi = min(lo, ends[r]), max(hi, ends[r])
	}
	spell := func(r int32) int { return min(spells-1, int(float64(ends[r]-lo)/max(1e-9, float64(hi-lo))*spells)) }
	var best [spells]float32
	for s := range best {
		best[s] = float32(math.NaN())
	}
	for _, r := range rows {
		if b := &best[spell(r)]; *b != *b || v.better(v.value[r], *b) {
			*b = v.value[r]
		}
	}
	var improved [spells]bool
	sofar := float32(math.NaN())
	for s, b := range best {
		if b == b && (sofar != sofar || v.better(b, sofar)) {
			improved[s], sofar = true, b
		}
	}
	return kept(rows, func(r int32) bool { return improved[spell(r)] })
}

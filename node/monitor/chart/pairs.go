package chart

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"mlfnode/node/parallel"
)

// Heat shows a statistic for each pair of levels of two parameters.
type Heat struct {
	Head
	X     Axis   `json:"x"`
	Y     Axis   `json:"y"`
	Z     *Axis  `json:"z,omitempty"` // of which each level has cells of its own
	Stat  string `json:"stat"`
	Cells []Cell `json:"cells"` // one for each level of Z
}

// Cell is one map: a row for each level of Y, with an entry for each level of X.
type Cell struct {
	N     [][]int64  `json:"n"` // trials with a finite value; for failed and done, trials that ended
	Value [][]Number `json:"value"`
}

// The statistics of a Heat.
const (
	StatMean   = "mean"
	StatBest   = "best"
	StatMedian = "median"
	StatCount  = "count"  // trials with a value
	StatFailed = "failed" // share of those that ended
	StatDone   = "done"   // trials that ended
)

// Stats lists the statistics of a Heat.
var Stats = []string{StatMean, StatBest, StatMedian, StatCount, StatFailed, StatDone}

// maxFacets bounds the levels of Z.
const maxFacets = 9

// Heat combines two parameters, and a third one with few levels unless z is "".
func (v *View) Heat(x, y, z, stat string) (*Heat, error) {
	if !slices.Contains(Stats, stat) {
		return nil, &Error{fmt.Sprintf("there is no statistic %q", stat), "choose one of " + strings.Join(Stats, ", ")}
	}
	ax, err := v.axisOf(x)
	if err != nil {
		return nil, err
	}
	ay, err := v.axisOf(y)
	if err != nil {
		return nil, err
	}
	h := &Heat{X: v.axes[ax].Axis, Y: v.axes[ay].Axis, Stat: stat}
	nx, ny, nz := len(h.X.Levels), len(h.Y.Levels), 1
	var facet []uint8
	if z != "" {
		az, err := v.axisOf(z)
		if err != nil {
			return nil, err
		}
		if h.Z, facet, nz = &v.axes[az].Axis, v.levels[az], len(v.axes[az].Levels); nz > maxFacets {
			return nil, &Error{fmt.Sprintf("%s has %d levels, and at most %d maps are drawn", z, nz, maxFacets),
				"choose a parameter with fewer values"}
		}
	}
	lx, ly := v.levels[ax], v.levels[ay]
	at := func(r int32) int {
		i := int(ly[r])*nx + int(lx[r])
		if facet != nil {
			i += int(facet[r]) * nx * ny
		}
		return i
	}
	n, value := cellStats(v, nx*ny*nz, at, stat)
	for k := range nz {
		var c Cell
		for row := range ny {
			from := k*nx*ny + row*nx
			c.N, c.Value = append(c.N, n[from:from+nx]), append(c.Value, value[from:from+nx])
		}
		h.Cells = append(h.Cells, c)
	}
	h.Head = v.head(heatSentence(v, h, n, value))
	return h, nil
}

func heatSentence(v *View, h *Heat, n []int64, value []Number) string {
	best := -1
	for i := range value {
		if n[i] > 0 && (best < 0 || v.better(float32(value[i]), float32(value[best]))) {
			best = i
		}
	}
	if best < 0 || h.Stat == StatCount || h.Stat == StatFailed || h.Stat == StatDone {
		return fmt.Sprintf("%s of %s by %s and %s.", h.Stat, v.d.Name, h.X.Key, h.Y.Key)
	}
	nx := len(h.X.Levels)
	return fmt.Sprintf("Best %s %s at %s=%s, %s=%s: %s.", h.Stat, v.d.Name, h.X.Key, h.X.Levels[best%nx].Label,
		h.Y.Key, h.Y.Levels[best/nx%len(h.Y.Levels)].Label, show(float64(value[best])))
}

// cellStats sums up the selected trials by the cell that at returns.
func cellStats(v *View, size int, at func(int32) int, stat string) (n []int64, value []Number) {
	rows, values := v.rows, []float32(nil)
	if stat == StatBest || stat == StatMedian {
		rows, values = v.order()
	}
	spans := parallel.Split(len(rows), max(leastRows, 4*size))
	counts, parts, places := make([][]int64, len(spans)), make([][]float64, len(spans)), make([][]int32, len(spans))
	parallel.Each(len(spans), func(p int) {
		lo, hi := spans[p].Lo, spans[p].Hi
		if stat == StatMedian {
			places[p], counts[p], parts[p] = placed(rows[lo:hi], values[lo:hi], size, at)
			return
		}
		counts[p], parts[p] = partSums(v, rows[lo:hi], size, at, stat)
	})
	n = make([]int64, size)
	sums := make([]float64, size)
	before := make([][]int64, len(spans)) // of each part
	for p := range spans {
		before[p] = slices.Clone(n)
		for i, k := range counts[p] {
			if stat != StatBest || n[i] == 0 {
				sums[i] += parts[p][i]
			}
			n[i] += k
		}
	}
	if stat == StatMedian {
		parallel.Each(len(spans), func(p int) {
			parts[p] = medians(n, before[p], values[spans[p].Lo:spans[p].Hi], places[p])
		})
		clear(sums)
		for p := range parts {
			for i, f := range parts[p] {
				sums[i] += f
			}
		}
	}
	value = make([]Number, size)
	for i := range value {
		switch {
		case stat == StatCount || stat == StatDone:
			value[i] = Number(n[i])
		case n[i] == 0:
			value[i] = Number(math.NaN())
		case stat == StatMean || stat == StatFailed:
			value[i] = Number(sums[i] / float64(n[i]))
		default:
			value[i] = Number(sums[i])
		}
	}
	return n, value
}

// partSums is like cellStats for some rows, without what is derived from the sums. With StatBest
// the sums are the values of the first rows of each cell.
func partSums(v *View, rows []int32, size int, at func(int32) int, stat string) (n []int64, sums []float64) {
	n, sums = make([]int64, size), make([]float64, size)
	for _, r := range rows {
		i := at(r)
		f := float64(v.value[r])
		switch stat {
		case StatFailed, StatDone:
			if ended(v.d.State[r]) {
				n[i]++
				if v.d.State[r] == failed {
					sums[i]++
				}
			}
		default:
			if finite(f) {
				if n[i]++; stat == StatMean || n[i] == 1 {
					sums[i] += f
				}
			}
		}
	}
	return n, sums
}

// placed returns the cell of each of some rows with these values, -1 for a value that is not
// finite, and the number of rows in each cell.
func placed(rows []int32, values []float32, size int, at func(int32) int) (places []int32, n []int64, sums []float64) {
	places, n, sums = make([]int32, len(rows)), make([]int64, size), make([]float64, size)
	for i, r := range rows {
		places[i] = -1
		if finite(float64(values[i])) {
			places[i] = int32(at(r))
			n[places[i]]++
		}
	}
	return places, n, sums
}

// medians finds the middle value of each cell, or half of each of two, in a part of the sorted
// values. n is the number of values in each cell, and before is the number of those that precede
// this part.
func medians(n, before []int64, sorted []float32, places []int32) []float64 {
	dest := make([]float64, len(n))
	for k, f := range sorted {
		i := places[k]
		if i < 0 {
			continue
		}
		if before[i] == (n[i]-1)/2 {
			dest[i] += float64(f) / 2
		}
		if before[i] == n[i]/2 {
			dest[i] += float64(f) / 2
		}
		before[i]++
	}
	return dest
}

// Matrix contains all pairs of parameters as small maps.
type Matrix struct {
	Head
	Axes  []Axis `json:"axes"`
	Pairs []Mini `json:"pairs"`
}

// Mini is a small map of two parameters, whose levels are merged to at most miniLevels.
type Mini struct {
	X           string     `json:"x"`
	Y           string     `json:"y"`
	N           [][]int64  `json:"n"`           // rows of Y
	Rank        [][]Number `json:"rank"`        // mean
	Interaction [][]Number `json:"interaction"` // mean rank less what both parameters say alone
}

const (
	miniLevels = 16
	miniAxes   = 8
)

// Matrix combines each pair of the first parameters.
func (v *View) Matrix() *Matrix {
	m := &Matrix{Axes: []Axis{}, Pairs: []Mini{}}
	ranks := v.ranks()
	axes := v.axes[:min(len(v.axes), miniAxes)]
	var pairs [][2]int
	for a := range axes {
		m.Axes = append(m.Axes, axes[a].Axis)
		for b := range a {
			pairs = append(pairs, [2]int{b, a})
		}
	}
	factors := v.factors(miniLevels)
	for i, sums := range sumPairs(factors, pairs, v.rows, ranks) {
		x, y := pairs[i][0], pairs[i][1]
		mini := newMini(&sums, factors[x].size, factors[y].size)
		mini.X, mini.Y = axes[x].Key, axes[y].Key
		m.Pairs = append(m.Pairs, mini)
	}
	m.Head = v.head(fmt.Sprintf("Mean rank of %s by each pair of %d parameters.", v.d.Name, len(axes)))
	return m
}

func newMini(sums *pairSums, nx, ny int) (m Mini) {
	n, sum := sums.n, sums.sum
	px, py, all := make([]cell, nx), make([]cell, ny), cell{}
	for i := range n {
		for _, c := range []*cell{&px[i%nx], &py[i/nx], &all} {
			c.n, c.sum = c.n+float64(n[i]), c.sum+sum[i]
		}
	}
	for row := range ny {
		rank, inter := make([]Number, nx), make([]Number, nx)
		for col := range nx {
			k := n[row*nx+col]
			rank[col], inter[col] = Number(math.NaN()), Number(math.NaN())
			if k > 0 {
				value := sum[row*nx+col] / float64(k)
				rank[col] = Number(value)
				inter[col] = Number(value - px[col].mean() - py[row].mean() + all.mean())
			}
		}
		m.N, m.Rank, m.Interaction = append(m.N, n[row*nx:row*nx+nx]), append(m.Rank, rank),
			append(m.Interaction, inter)
	}
	return m
}

// Parallel is a parallel plot: bands between neighbouring axes, and the lines of some trials.
type Parallel struct {
	Head
	Axes   []Axis   `json:"axes"`
	Edges  []Number `json:"edges"` // of the levels of the value, which is the last axis
	Bands  []Band   `json:"bands"` // between each axis and the next
	Lines  Lines    `json:"lines"`
	Sample bool     `json:"sample"` // lines are the best and a sample, not all
}

// Band describes the trials between two axes, in columns: level on the first, level on the second,
// number of trials, and their mean rank.
type Band struct {
	From []int    `json:"from"`
	To   []int    `json:"to"`
	N    []int64  `json:"n"`
	Rank []Number `json:"rank"`
}

// Lines are single trials in columns, the best first.
type Lines struct {
	Trial  []int64  `json:"trial"`
	Levels [][]int  `json:"levels"` // by axis, without the value
	Value  []Number `json:"value"`
	Rank   []Number `json:"rank"`
}

const (
	allLines    = 3000
	bestLines   = 100
	sampleLines = 200
	valueLevels = 32
	maxParallel = 32 // axes that are drawn
)

// Parallel draws the trials that have a value along the axes in the order of keys, or in that of
// the sweep if there are no keys. If there are very many axes, the first ones are drawn.
func (v *View) Parallel(keys []string) (*Parallel, error) {
	order := make([]int, len(v.axes))
	for a := range order {
		order[a] = a
	}
	if len(keys) > 0 {
		order = order[:0]
		for _, key := range keys {
			a, err := v.axisOf(key)
			if err != nil {
				return nil, err
			}
			if slices.Contains(order, a) {
				return nil, &Error{fmt.Sprintf("the axis %s is named twice", key), "name each axis once"}
			}
			order = append(order, a)
		}
	}
	order = order[:min(len(order), maxParallel)]
	p := &Parallel{Axes: []Axis{}, Edges: []Number{}, Bands: []Band{},
		Lines: Lines{Trial: []int64{}, Levels: [][]int{}, Value: []Number{}, Rank: []Number{}}}
	ranks := v.ranks()
	h := v.Histogram()
	value := make([]uint8, len(v.d.State))
	if len(h.Edges) > 0 {
		for i := 0; i <= bins; i += bins / valueLevels {
			p.Edges = append(p.Edges, h.Edges[i])
		}
		fillLevels(v, value, p.Edges)
	}
	factors := append(v.factors(maxLevels), newFactor(value, valueLevels, valueLevels))
	var pairs [][2]int // each axis, and the one before it
	for i, a := range order {
		next := len(v.axes)
		if i+1 < len(order) {
			next = order[i+1]
		}
		pairs = append(pairs, [2]int{next, a})
	}
	for i, sums := range sumPairs(factors, pairs, v.rows, ranks) {
		p.Bands = append(p.Bands, newBand(&sums, factors[pairs[i][0]].size))
	}
	for _, a := range order {
		p.Axes = append(p.Axes, v.axes[a].Axis)
	}
	rows, _ := v.order()
	if p.Sample = len(rows) > allLines; p.Sample {
		some := slices.Clone(rows[:bestLines])
		for i := range sampleLines {
			some = append(some, rows[bestLines+i*(len(rows)-bestLines)/sampleLines])
		}
		rows = some
	}
	p.Lines.fill(v, order, rows, ranks)
	p.Head = v.head(h.Sentence)
	return p, nil
}

// fillLevels sets the level of the value of each row that has one: the interval between edges that
// contains it. Values outside are at the ends.
func fillLevels(v *View, levels []uint8, edges []Number) {
	sorted, values := v.order()
	last := len(edges) - 2
	level := func(n int) int { // of the row at position n, in the order from the lowest value
		if v.d.Maximize {
			n = len(sorted) - 1 - n
		}
		f := Number(values[n])
		return sort.Search(last, func(l int) bool { return edges[l+1] >= f })
	}
	lo := 0
	for l := 0; l <= last; l++ {
		hi := sort.Search(len(sorted), func(n int) bool { return level(n) > l })
		from, to := lo, hi
		if v.d.Maximize {
			from, to = len(sorted)-hi, len(sorted)-lo
		}
		for _, r := range sorted[from:to] {
			levels[r] = uint8(l)
		}
		lo = hi
	}
}

func newBand(sums *pairSums, high int) Band {
	n, sum := sums.n, sums.sum
	b := Band{From: []int{}, To: []int{}, N: []int64{}, Rank: []Number{}}
	for i, k := range n {
		if k > 0 {
			b.From, b.To = append(b.From, i/high), append(b.To, i%high)
			b.N, b.Rank = append(b.N, k), append(b.Rank, Number(sum[i]/float64(k)))
		}
	}
	return b
}

func (l *Lines) fill(v *View, axes []int, rows []int32, ranks []float32) {
	for _, a := range axes {
		column := make([]int, len(rows))
		for i, r := range rows {
			column[i] = int(v.levels[a][r])
		}
		l.Levels = append(l.Levels, column)
	}
	for _, r := range rows {
		l.Trial, l.Value, l.Rank = append(l.Trial, v.d.index(r)), append(l.Value, Number(v.value[r])),
			append(l.Rank, Number(ranks[r]))
	}
}

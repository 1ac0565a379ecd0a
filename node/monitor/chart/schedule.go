package chart

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

const (
	// scheduledTrials is the maximum number of trials of a sweep whose rest is simulated trial by
	// trial.
	scheduledTrials = 1 << 17
	// plays is the number of simulations, and playedTrials bounds the trials of all of them
	// together.
	plays        = 16
	playedTrials = 1 << 18
)

// slots are the times at which each slot becomes free, the first one at the top.
type slots []float64

func (s slots) Len() int           { return len(s) }
func (s slots) Less(i, j int) bool { return s[i] < s[j] }
func (s slots) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *slots) Push(v any)        { *s = append(*s, v.(float64)) }
func (s *slots) Pop() any {
	v := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return v
}

// schedule simulates the rest of a sweep: each slot takes the next trial when it becomes free. This
// shows which trials come last, and which slots are idle then. It is not ok for a sweep with too
// many trials.
func (m *model) schedule(correct, busy float64) (seconds float64, ok bool) {
	if m.d.Stride > 1 || m.d.Space.Count() > scheduledTrials {
		return 0, false
	}
	waiting := m.waiting()
	var rest slots // of the running ones
	for _, run := range m.d.recent() {
		if run.Running {
			effects := 0.0
			for a, l := range m.levelsAt(run.Index) {
				effects += m.effect[a][l]
			}
			rest = append(rest, outlast(m.predict(effects)*correct, math.Sqrt(m.sigma2), run.End-run.Start))
		}
	}
	n := max(1, int(math.Round(busy)), len(rest))
	for len(rest) < n {
		rest = append(rest, 0)
	}
	rounds := max(1, min(plays, playedTrials/max(1, len(waiting))))
	random := rand.New(rand.NewPCG(1, 2))
	sigma := math.Sqrt(m.sigma2)
	for range rounds {
		free := append(slots{}, rest...)
		heap.Init(&free)
		for _, mean := range waiting {
			free[0] += mean * correct * math.Exp(sigma*random.NormFloat64()-m.sigma2/2)
			heap.Fix(&free, 0)
		}
		last := 0.0
		for _, end := range free {
			last = max(last, end)
		}
		seconds += last / float64(rounds)
	}
	return seconds * max(1, float64(n)/busy), true // between two trials a slot is free for a moment
}

// outlast returns how much longer a trial takes that has already run for some time, if the
// logarithms of durations vary by sigma around that mean.
func outlast(mean, sigma, ran float64) float64 {
	if sigma < 1e-3 || ran <= 0 {
		return max(0, mean-ran)
	}
	over := func(x float64) float64 { return math.Erfc(-x / math.Sqrt2) }
	z := (math.Log(mean/ran) - sigma*sigma/2) / sigma
	if z < -3 {
		return ran * sigma / 3 // far beyond the expected duration
	}
	return max(0, mean*over(z+sigma)/over(z)-ran)
}

// waiting returns the durations of the trials that have not started, in the order in which they
// will.
func (m *model) waiting() []float64 {
	count := m.d.Space.Count()
	var means []float64
	at := make([][]int64, len(m.d.Space.Values()))
	for k := range at {
		at[k] = make([]int64, BlockTrials)
	}
	add := func(r ranges.Range) {
		for lo := r.Lo; lo < r.Hi; lo += BlockTrials {
			hi := min(r.Hi, lo+BlockTrials)
			if m.d.Space.Positions(lo, hi, at) != nil {
				return // the record is inconsistent, which New has reported
			}
			for i := range hi - lo {
				if row, ok := m.d.row(lo + i); ok && m.d.State[row] >= running {
					continue
				}
				effects := 0.0
				for a, axis := range m.axes {
					effects += m.effect[a][axis.levelOf(at[axis.place][i])]
				}
				means = append(means, m.predict(effects))
			}
		}
	}
	if m.d.Order != grid.OrderSpread {
		add(ranges.Range{Hi: count})
		if m.d.Order == grid.OrderLongest {
			slices.SortFunc(means, func(a, b float64) int { return cmp.Compare(b, a) })
		}
		return means
	}
	spread := grid.NewSpread(count)
	for b := range spread.Blocks() {
		add(spread.Block(b))
	}
	return means
}

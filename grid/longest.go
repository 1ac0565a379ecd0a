package grid

import (
	"cmp"
	"math"
	"slices"
	"time"

	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
)

const (
	// knownTimes bounds the run times that count: the newest.
	knownTimes = 4096
	// fewestTimes is how many there must be before they say in which order trials are to begin.
	fewestTimes = 3
	// timeLevels bounds the parts into which the values of an axis are divided: neighbours are taken together.
	timeLevels = 64
	// timeRounds is how often the effects of all axes are fitted in turn, and blockSamples how many trials stand for a block.
	timeRounds   = 8
	blockSamples = 8
)

// Longest orders the trials of a sweep by how long they are expected to run, the longest first, so that none of them is left for the end,
// when slots are idle. It learns from the trials that have ended: the logarithm of a run time is taken as a sum of effects, one for the value
// of each axis. Until some have ended, and among equal ones, the order is that of Spread, whose blocks of neighbours are what is ordered.
type Longest struct {
	space  space.Space
	spread Spread
	times  []runTime // at most knownTimes
	noted  int64     // run times so far
	due    int64     // how many there must be for the next order
	order  []int64   // of the blocks; nil is that of spread
}

type runTime struct {
	index int64
	log   float64 // of seconds
}

// NewLongest begins with no run times.
func NewLongest(s space.Space) *Longest {
	return &Longest{space: s, spread: NewSpread(s.Count()), due: fewestTimes}
}

// Extend goes on with a space that has further points.
func (l *Longest) Extend(s space.Space) {
	l.space, l.spread, l.order, l.due = s, NewSpread(s.Count()), nil, max(l.noted, fewestTimes)
}

// Note takes the run time of a trial.
func (l *Longest) Note(index int64, took time.Duration) {
	t := runTime{index, math.Log(max(took, time.Millisecond).Seconds())}
	if len(l.times) < knownTimes {
		l.times = append(l.times, t)
	} else {
		l.times[l.noted%knownTimes] = t
	}
	l.noted++
}

// Known reports whether the order goes by run times.
func (l *Longest) Known() bool { return l.order != nil }

// Blocks is how many blocks there are.
func (l *Longest) Blocks() int64 { return l.spread.Blocks() }

// Block gives the trials of the block that is the nth in order, from 0 on.
func (l *Longest) Block(n int64) ranges.Range {
	if l.order != nil {
		n = l.order[n]
	}
	return l.spread.Block(n)
}

// Reorder computes the order again where enough run times have come since it was last found, and reports whether it did so. For a sweep of
// many trials it does so about a hundred times in all.
func (l *Longest) Reorder() bool {
	if l.noted < l.due {
		return false
	}
	l.due = l.noted + max(1, l.noted/8)
	effects, ok := l.fit()
	if !ok {
		return false
	}
	expected := make([]float64, l.spread.Blocks())
	at := make([][]int64, len(effects))
	for k := range at {
		at[k] = make([]int64, 1)
	}
	for n := range expected {
		b := l.spread.Block(int64(n))
		step := max(1, (b.Hi-b.Lo)/blockSamples)
		for i := b.Lo; i < b.Hi; i += step {
			if l.space.Positions(i, i+1, at) != nil {
				return false // the record contradicts itself, which fails its trials
			}
			log := 0.0
			for k := range effects {
				log += effects[k].of(at[k][0])
			}
			expected[n] = max(expected[n], math.Exp(log))
		}
	}
	l.order = make([]int64, len(expected))
	for n := range l.order {
		l.order[n] = int64(n)
	}
	slices.SortStableFunc(l.order, func(a, b int64) int { return cmp.Compare(expected[b], expected[a]) })
	return true
}

// effect is what the values of an axis add to the logarithm of a run time.
type effect struct {
	width int64     // values of a level
	level []float64 // NaN where none has run
}

func (e *effect) of(position int64) float64 {
	return e.level[min(position/e.width, int64(len(e.level)-1))]
}

// fit finds the effects of all axes: each in turn is the mean of what the others leave unexplained.
func (l *Longest) fit() ([]effect, bool) {
	sizes := l.space.Sizes()
	effects, at := make([]effect, len(sizes)), make([][]int64, len(sizes))
	for k, n := range sizes {
		width := (n + timeLevels - 1) / timeLevels
		effects[k] = effect{width: width, level: make([]float64, (n+width-1)/width)}
		at[k] = make([]int64, 1)
	}
	mean := 0.0
	for i := range l.times {
		mean += l.times[i].log / float64(len(l.times))
	}
	levels := make([]int64, 0, len(l.times)*len(sizes)) // of each run time
	rest := make([]float64, len(l.times))               // what is not explained
	for i, t := range l.times {
		if l.space.Positions(t.index, t.index+1, at) != nil {
			return nil, false
		}
		for k := range sizes {
			levels = append(levels, min(at[k][0]/effects[k].width, int64(len(effects[k].level)-1)))
		}
		rest[i] = t.log - mean
	}
	for range timeRounds {
		for k := range effects {
			e := effects[k].level
			sums, counts := make([]float64, len(e)), make([]float64, len(e))
			for i := range rest {
				v := levels[i*len(sizes)+k]
				sums[v] += rest[i]
				counts[v]++
			}
			for v := range e {
				if counts[v] > 0 {
					sums[v] /= counts[v]
					e[v] += sums[v]
				} else {
					e[v] = math.NaN()
				}
			}
			for i := range rest {
				rest[i] -= sums[levels[i*len(sizes)+k]]
			}
		}
	}
	for k := range effects {
		effects[k].complete()
	}
	return effects, true
}

// complete gives levels of which no trial has run an effect: on the line through the two nearest that have one. One alone is that of all.
func (e *effect) complete() {
	var known []int
	for v, x := range e.level {
		if !math.IsNaN(x) {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		clear(e.level)
		return
	}
	for v, x := range e.level {
		if !math.IsNaN(x) {
			continue
		}
		i, _ := slices.BinarySearch(known, v)
		a, b := known[max(0, min(i-1, len(known)-2))], known[min(max(i, 1), len(known)-1)]
		if e.level[v] = e.level[a]; a != b {
			e.level[v] += (e.level[b] - e.level[a]) * float64(v-a) / float64(b-a)
		}
	}
}

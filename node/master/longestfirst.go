package master

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
)

const (
	// knownTimes is how many run times count: the newest.
	knownTimes = 4096
	// fewestTimes is how many there must be before they decide the order.
	fewestTimes = 3
	// timeLevels bounds the levels into which the values of an axis are divided; neighbours share a
	// level.
	timeLevels = 64
	// timeRounds is how often the effects of all axes are fitted in turn, and blockSamples how many
	// trials represent a block.
	timeRounds   = 8
	blockSamples = 8
)

// longestFirst orders the trials of a sweep by their expected run time, the longest first, so that
// no long trial is left for the end, when slots are idle. It learns from trials that have ended: it
// models the logarithm of a run time as a sum of effects, one for the value of each axis. What it
// orders are the blocks of grid.Spread, whose own order applies until some trials have ended, and
// among blocks with equal times.
type longestFirst struct {
	space  space.Space
	spread grid.Spread
	times  []runTime // at most knownTimes
	added  int64     // run times so far
	due    int64     // how many there must be for the next order
	order  []int64   // of the blocks; nil: the order of spread
}

type runTime struct {
	index int64
	log   float64 // of seconds
}

// newLongestFirst returns the order of a sweep without run times.
func newLongestFirst(s space.Space) *longestFirst {
	return &longestFirst{space: s, spread: grid.NewSpread(s.Count()), due: fewestTimes}
}

// extend goes on with a space that has additional points.
func (l *longestFirst) extend(s space.Space) {
	l.space, l.spread, l.order, l.due = s, grid.NewSpread(s.Count()), nil, max(l.added, fewestTimes)
}

// addRunTime records how long a trial ran.
func (l *longestFirst) addRunTime(index int64, took time.Duration) {
	t := runTime{index, math.Log(max(took, time.Millisecond).Seconds())}
	if len(l.times) < knownTimes {
		l.times = append(l.times, t)
	} else {
		l.times[l.added%knownTimes] = t
	}
	l.added++
}

// Blocks returns how many blocks there are.
func (l *longestFirst) Blocks() int64 { return l.spread.Blocks() }

// Block returns the trials of the nth block in order, from 0.
func (l *longestFirst) Block(n int64) ranges.Range {
	if l.order != nil {
		n = l.order[n]
	}
	return l.spread.Block(n)
}

// reorder computes the order again if enough run times have been added since the last time, and
// reports whether it did. It does so about a hundred times in all for a sweep of many trials.
func (l *longestFirst) reorder() bool {
	if l.added < l.due {
		return false
	}
	l.due = l.added + max(1, l.added/8)
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
				level := effects[k].level
				log += level[min(at[k][0]/effects[k].width, int64(len(level)-1))]
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

// fit computes the effects of all axes: each in turn is the mean of what the others leave
// unexplained.
func (l *longestFirst) fit() ([]effect, bool) {
	axes := l.space.Values()
	effects, at := make([]effect, len(axes)), make([][]int64, len(axes))
	for k, values := range axes {
		n := values.Count()
		width := (n + timeLevels - 1) / timeLevels
		effects[k] = effect{width: width, level: make([]float64, (n+width-1)/width)}
		at[k] = make([]int64, 1)
	}
	mean := 0.0
	for i := range l.times {
		mean += l.times[i].log / float64(len(l.times))
	}
	levels := make([]int64, 0, len(l.times)*len(axes)) // of each run time
	rest := make([]float64, len(l.times))              // what is not explained
	for i, t := range l.times {
		if l.space.Positions(t.index, t.index+1, at) != nil {
			return nil, false
		}
		for k := range axes {
			levels = append(levels, min(at[k][0]/effects[k].width, int64(len(effects[k].level)-1)))
		}
		rest[i] = t.log - mean
	}
	for range timeRounds {
		for k := range effects {
			e := effects[k].level
			sums, counts := make([]float64, len(e)), make([]float64, len(e))
			for i := range rest {
				v := levels[i*len(axes)+k]
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
				rest[i] -= sums[levels[i*len(axes)+k]]
			}
		}
	}
	for k := range effects {
		effects[k].complete()
	}
	return effects, true
}

// complete sets the effects of levels without a run time: on the line through the two nearest
// levels that have one. If only one level has an effect, all get it.
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

// maxLoadedTimes bounds the run times that are loaded for a sweep with grid.OrderLongest.
const maxLoadedTimes = 512

// loadRunTimes loads the run times of trials that have ended, evenly from all of them. It leaves
// out what it can't read: the order is computed again as trials end.
func (s *scheduler) loadRunTimes(ctx context.Context, f *feed) {
	defer f.longest.reorder()
	step, at := max(1, f.done.Count()/maxLoadedTimes), int64(0)
	for r := range f.done.All() {
		for ; at < r.Hi-r.Lo; at += step {
			t, known, err := s.m.cfg.History.Trial(ctx, grid.TrialID{Sweep: f.sweep.ID, Index: r.Lo + at})
			if err != nil {
				s.m.log.Warn("run times of trials could not be read; the longest may not run first",
					"sweep", f.sweep.ID, "err", err)
				return
			}
			if known && t.State == grid.Succeeded {
				f.longest.addRunTime(t.Index, time.Duration(t.Result.Usage.Wall)*time.Microsecond)
			}
		}
		at -= r.Hi - r.Lo
	}
}

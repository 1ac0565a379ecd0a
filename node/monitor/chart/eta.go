package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"mlfnode/grid/moments"
)

// ETA is the time that a sweep will still run, estimated from the durations and the parameters of
// its trials.
type ETA struct {
	Seconds Number   `json:"seconds"` // until the last trial ends; null while nothing tells
	P90     Number   `json:"p90"`     // it takes longer than that once in ten times
	Least   bool     `json:"least"`   // values have not run yet, and nothing tells how long they take
	Work    Number   `json:"work"`    // seconds that trials have still to run, one after the other
	Busy    Number   `json:"busy"`    // trials that run at a time
	N       int64    `json:"n"`       // trials that it rests on
	Unseen  []Unseen `json:"unseen"`
	Costs   []Cost   `json:"costs"` // of parameters, the ones that matter most first

	Sentence string `json:"sentence"`
}

// Unseen is a parameter some values of which have not run yet.
type Unseen struct {
	Key    string   `json:"key"`
	Labels []string `json:"labels"`
	Line   bool     `json:"line"` // how long they take follows from the trend of those that have run
}

// Cost is the remaining time of the trials of each level of a parameter, in seconds, as if they ran
// one after another.
type Cost struct {
	Key    string   `json:"key"`
	Spread Number   `json:"spread"` // the longest level takes so many times the shortest one
	Labels []string `json:"labels"`
	Work   []Number `json:"work"`
}

const (
	leastEnded = 3
	window     = 300.0 // seconds in which concurrent trials are counted
	windowBins = 60
	newest     = 0.1 // share of the ended trials that correct the model
	shownCosts = 4
	usualDrift = 0.05 // how much faster or slower a machine gets in the meantime
)

// ETA fits the model to all ended trials, whatever the view selects.
func (t *trials) ETA() *ETA {
	e := &ETA{Seconds: Number(math.NaN()), P90: Number(math.NaN()), Work: Number(math.NaN()),
		Unseen: []Unseen{}, Costs: []Cost{}}
	var rows, all []int32
	for r, state := range t.d.State {
		if wall := float64(t.d.Wall[r]); ended(state) && finite(wall) && wall > 0 {
			all = append(all, int32(r))
			if state == succeeded {
				rows = append(rows, int32(r))
			}
		}
	}
	if len(rows) < leastEnded {
		rows = all
	}
	if e.N = int64(len(rows)); len(rows) < leastEnded {
		e.Sentence = "Too few trials have ended to tell how long the others take."
		return e
	}
	m := t.fit(rows)
	e.Unseen = m.guess()
	correct, spread := m.correction(all)
	work := m.work(e, correct)
	e.Busy = Number(t.d.busy())
	e.Work = Number(work.rest)
	if e.Busy <= 0 {
		e.Sentence = fmt.Sprintf("%s of work are left, and nothing runs.", seconds(work.rest))
		return e
	}
	rest, ok := m.schedule(correct, float64(e.Busy))
	if !ok {
		// at the end slots wait for the last trial, on average for half of one
		idle := work.running / 2 * max(0, 1-1/float64(e.Busy))
		rest = max(work.rest/float64(e.Busy)+min(idle, work.rest), work.longest)
	}
	e.Seconds = Number(rest)
	left := max(1, float64(t.d.Space.Count()-t.d.Done))
	e.P90 = e.Seconds * Number(1+1.28*math.Hypot(math.Sqrt(math.Expm1(m.sigma2)/left), math.Hypot(spread, work.doubt)))
	least := ""
	for _, u := range e.Unseen {
		if !u.Line {
			e.Least, least = true, "at least "
		}
	}
	e.Sentence = fmt.Sprintf("About %s%s left: %s of work, %.3g at a time.", least, seconds(float64(e.Seconds)),
		seconds(work.rest), float64(e.Busy))
	if len(e.Costs) > 0 && e.Costs[0].Spread > 1.5 {
		e.Sentence += fmt.Sprintf(" %s matters most.", e.Costs[0].Key)
	}
	return e
}

// correction compares the newest trials with the model: it returns the ratio of actual to predicted
// durations, and how much that ratio varies.
func (m *model) correction(all []int32) (ratio, spread float64) {
	sorted := sortRows(all, m.d.Ended, true)
	n := max(leastEnded, int(math.Ceil(newest*float64(len(sorted)))))
	part := func(rows []int32) float64 {
		took, said := 0.0, 0.0
		for _, r := range rows {
			took += float64(m.d.Wall[r])
			said += m.predict(m.effects(r))
		}
		return took / said
	}
	var ratios []float64 // their logarithms
	for lo := 0; lo+n <= len(sorted); lo += n {
		ratios = append(ratios, math.Log(part(sorted[lo:lo+n])))
	}
	ratio = ratios[0]
	if spread = 1; len(ratios) > 1 {
		middle := median(ratios)
		for i := range ratios {
			ratios[i] = math.Abs(ratios[i] - middle)
		}
		// for a normal distribution this is the standard deviation; a few outliers do not matter
		spread = 1.4826 * median(ratios)
	}
	if !finite(ratio) {
		return 1, spread
	}
	chance := m.sigma2 / float64(n) // the variance of the ratio while nothing has changed
	drift := max(usualDrift*usualDrift, min(1, spread*spread)-chance)
	return math.Exp(min(math.Ln2, max(-math.Ln2, ratio*drift/(drift+chance)))), spread
}

// median sorts the values.
func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// work is what remains to run.
type work struct {
	rest    float64 // seconds, one after another
	longest float64 // of a single trial
	running float64 // mean duration of the trials that are running
	doubt   float64 // the standard deviation of rest, as a share of it, because of values that have not run
}

// work sums up the model over the sweep, minus what has ended and run. The sum over a product of
// ranges of values is a product of sums.
func (m *model) work(e *ETA, correct float64) work {
	total := 0.0
	byLevel := make([][]float64, len(m.axes))
	for a := range byLevel {
		byLevel[a] = make([]float64, len(m.axes[a].Levels))
	}
	for _, p := range m.d.Space.Products() {
		if !p.Whole {
			part := make([][]float64, len(m.axes))
			for a := range part {
				part[a] = make([]float64, len(byLevel[a]))
			}
			sum := 0.0
			weight := eachPoint(m.d.Space, p, func(at [][]int64, i int) {
				effects := 0.0
				for a, axis := range m.axes {
					effects += m.effect[a][axis.levelOf(at[axis.place][i])]
				}
				f := m.predict(effects)
				sum += f
				for a, axis := range m.axes {
					part[a][axis.levelOf(at[axis.place][i])] += f
				}
			})
			total += sum * weight
			for a := range part {
				for l := range part[a] {
					byLevel[a][l] += part[a][l] * weight
				}
			}
			continue
		}
		product, each := m.smear*math.Exp(m.mu), m.smear*m.floor
		sums := make([]float64, len(m.axes))
		at := func(a, l int) float64 { // the values of a level that lie within the ranges
			axis := m.axes[a]
			n := min(p.Hi[axis.place], axis.Levels[l].Hi) - max(p.Lo[axis.place], axis.Levels[l].Lo)
			return float64(max(0, n)) * math.Exp(m.effect[a][l])
		}
		for a := range m.axes {
			for l := range byLevel[a] {
				sums[a] += at(a, l)
			}
			product *= sums[a]
		}
		total += product + each*float64(p.Count)
		for a, axis := range m.axes {
			for l, level := range axis.Levels {
				n := min(p.Hi[axis.place], level.Hi) - max(p.Lo[axis.place], level.Lo)
				share := float64(max(0, n)) / float64(p.Hi[axis.place]-p.Lo[axis.place])
				byLevel[a][l] += product/sums[a]*at(a, l) + each*float64(p.Count)*share
			}
		}
	}
	w := m.subtract(byLevel, total, correct)
	for a, axis := range m.axes {
		c := Cost{Key: axis.Key, Spread: Number(math.Exp(slices.Max(m.effect[a]) - slices.Min(m.effect[a])))}
		doubt, sum := 0.0, 0.0
		for l, f := range byLevel[a] {
			f = max(0, f)
			doubt, sum = doubt+f*m.doubt[a][l], sum+f
			c.Labels, c.Work = append(c.Labels, axis.Levels[l].Label), append(c.Work, Number(f*correct))
		}
		if sum > 0 {
			w.doubt = math.Hypot(w.doubt, doubt/sum)
		}
		e.Costs = append(e.Costs, c)
	}
	slices.SortStableFunc(e.Costs, func(a, b Cost) int { return cmp.Compare(b.Spread, a.Spread) })
	e.Costs = e.Costs[:min(len(e.Costs), shownCosts)]
	return w
}

// subtract subtracts what has run from the sums.
func (m *model) subtract(byLevel [][]float64, total, correct float64) work {
	scale, seen := 1.0, int64(0) // trials that were not examined are like the rest
	for _, state := range m.d.State {
		if ended(state) {
			seen++
		}
	}
	if m.d.Stride > 1 && seen > 0 {
		scale = float64(m.d.Done) / float64(seen)
	}
	gone := 0.0
	for r, state := range m.d.State {
		if !ended(state) {
			continue
		}
		said := m.predict(m.effects(int32(r))) * scale
		gone += said
		for a, levels := range m.levels {
			byLevel[a][levels[r]] -= said
		}
	}
	var w work
	var lengths moments.Moments
	for _, run := range m.d.recent() {
		if !run.Running {
			continue
		}
		levels := m.levelsAt(run.Index)
		effects := 0.0
		for a, l := range levels {
			effects += m.effect[a][l]
		}
		said, ran := m.predict(effects), run.End-run.Start
		w.longest = max(w.longest, said*correct-ran)
		lengths.Add(said * correct)
		said = min(said, ran/correct)
		gone += said
		for a, l := range levels {
			byLevel[a][l] -= said
		}
	}
	w.rest = max(0, total-gone) * correct
	if lengths.N > 0 {
		w.running = lengths.Mean()
	}
	if m.d.Done >= m.d.Space.Count() {
		w.rest = 0
	}
	return w
}

// Recent holds the trials that are running, and all that have ended since From.
type Recent struct {
	Runs []Run
	From float64 // seconds since Data.Base
}

// Run is the time span in which a trial ran, in seconds since Data.Base.
type Run struct {
	Index      int64
	Start, End float64
	Running    bool // End is now
}

// recent returns the trials that are running, and those that ran in the last minutes.
func (d *Data) recent() []Run {
	if d.Stride > 1 { // a sample of blocks has none of the running trials, or far too many
		return d.Recent.Runs
	}
	var all []Run
	for r, state := range d.State {
		run := Run{Index: d.index(int32(r)), Start: float64(d.Started[r]), End: d.Now, Running: state == running}
		if !finite(run.Start) {
			run.Start = d.Now
		}
		if !run.Running {
			run.End = float64(d.Ended[r])
		}
		if state != 0 && run.End > d.Now-window {
			all = append(all, run)
		}
	}
	return all
}

// levelsAt returns the levels of a trial, which need not be among the rows.
func (t *trials) levelsAt(index int64) []uint8 {
	at := make([][]int64, len(t.d.Space.Values()))
	for k := range at {
		at[k] = make([]int64, 1)
	}
	_ = t.d.Space.Positions(index, index+1, at) // it fails only for an inconsistent record, which New has reported
	levels := make([]uint8, len(t.axes))
	for a, axis := range t.axes {
		levels[a] = axis.levelOf(at[axis.place][0])
	}
	return levels
}

// busy returns how many trials ran at the same time recently: the median over parts of the last
// minutes, without the parts in which nothing ran.
func (d *Data) busy() float64 {
	runs := d.recent()
	from, to := math.Inf(1), d.Now
	for r, state := range d.State {
		if start := float64(d.Started[r]); state != 0 && finite(start) {
			from = min(from, start)
		}
	}
	if from = max(from, to-window); d.Stride > 1 && d.Recent.From > from {
		// if trials are very short, only the newest are included, and none of this moment
		from, to = d.Recent.From, d.Recent.From
		for _, run := range runs {
			if !run.Running {
				to = max(to, run.End)
			}
		}
	}
	if !(to > from) {
		return 0
	}
	width := (to - from) / windowBins
	var sum [windowBins]float64
	for _, run := range runs {
		for b := max(0, int((run.Start-from)/width)); b < windowBins; b++ {
			lo := from + float64(b)*width
			if lo >= run.End {
				break
			}
			sum[b] += max(0, min(run.End, lo+width)-max(run.Start, lo)) / width
		}
	}
	var parts []float64
	for _, f := range sum {
		if f > 0 {
			parts = append(parts, f)
		}
	}
	if len(parts) == 0 {
		return 0
	}
	return median(parts)
}

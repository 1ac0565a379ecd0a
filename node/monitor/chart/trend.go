package chart

import (
	"math"
	"slices"
)

// trend is how the durations of an axis depend on its values, learned from the values that have
// run. It is an average of curves, each of which counts as much as it is likely, beforehand and by
// how well it fits: so a difference within the noise changes little.
type trend struct {
	curves []curve
	least  float64 // factor
}

// curve is a possible course of the factors. miss sums up the squares of the distances of those
// that are known from it, in standard deviations.
type curve struct {
	weight, miss float64
	at           func(x float64) (factor, deviation float64)
}

const (
	// priorFlat is how often the values of a numeric parameter make no difference, such as those of
	// a seed; priorPower is how often durations follow a power law. These and the priors of shapes
	// add up to 1.
	priorFlat  = 0.5
	priorPower = 0.1
	maxPower   = 3    // faster growth or decline is not extrapolated,
	leastShare = 0.01 // nor a decline below this share of the least factor that is known
)

// shapes are other curves: a + b·form(value), where neither a nor b is negative. Time mostly grows
// in proportion to a number of epochs, or falls with the size of a batch, beside a part that stays
// the same.
var shapes = [...]struct {
	pure, any float64 // priors, with a of 0 and with any
	form      func(x float64) float64
	above     float64 // it is meant for axes whose values are all greater
}{
	{0.12, 0.12, func(x float64) float64 { return x }, math.Inf(-1)},
	{0, 0.02, func(x float64) float64 { return -x }, math.Inf(-1)},
	{0.04, 0.02, func(x float64) float64 { return x * x }, -math.SmallestNonzeroFloat64}, // that is, for 0 as well
	{0.05, 0.03, func(x float64) float64 { return 1 / x }, 0},
}

// at returns the logarithm of the factor of a value, and its standard deviation. It averages
// logarithms, so that an unlikely curve that grows a thousandfold does not decide alone.
func (t *trend) at(x float64) (log, deviation float64) {
	square := 0.0
	for _, c := range t.curves {
		f, d := c.at(x)
		f = max(t.least, f)
		y, sure := math.Log(f), min(1, d/f)
		log, square = log+c.weight*y, square+c.weight*(y*y+sure*sure)
	}
	return log, math.Sqrt(max(0, square-log*log))
}

// fitTrend fits a trend to the logarithms of the factors of some of the values; those of the others
// are NaN. chance is the variance of each. It returns nil if fewer than two are known, or if a
// value is not a finite number.
func fitTrend(values, logs, chance []float64) *trend {
	lo, hi := slices.Min(values), slices.Max(values)
	if lo == hi || !finite(hi-lo) {
		return nil
	}
	scale := func(x float64) float64 { return (x - lo) / (hi - lo) } // on which slopes of about 1 are usual
	if lo > 0 {
		scale = math.Log
	}
	var x, u, y, f, wy, wf []float64
	for l, log := range logs {
		if !math.IsNaN(log) {
			x, u, y, f = append(x, values[l]), append(u, scale(values[l])), append(y, log), append(f, math.Exp(log))
			wy, wf = append(wy, 1/chance[l]), append(wf, math.Exp(-2*log)/chance[l])
		}
	}
	if len(x) < 2 {
		return nil
	}
	t := &trend{least: leastShare * slices.Min(f)}
	add := func(weight, miss float64, at func(x float64) (factor, deviation float64)) {
		last, _ := at(lo)
		if first, _ := at(hi); finite(miss + first + last) {
			t.curves = append(t.curves, curve{weight, miss, at})
		}
	}
	law := regression(u, y, wy)
	flat := line{mean: law.mean}
	add(priorFlat, flat.miss(u, y, wy), func(float64) (float64, float64) { return math.Exp(flat.mean), 0 })
	free := math.Sqrt(law.chance / (law.chance + 1)) // a curve with one parameter more fits anything better
	if lo > 0 {
		law.slope = max(-maxPower, min(maxPower, law.slope))
		add(priorPower*free, law.miss(u, y, wy), func(x float64) (float64, float64) {
			f := math.Exp(law.at(math.Log(x)))
			return f, f * math.Sqrt(law.chance) * math.Abs(math.Log(x)-law.center)
		})
	}
	for _, s := range shapes {
		if !(lo > s.above) {
			continue
		}
		origin := min(0, s.form(lo), s.form(hi))
		form := func(x float64) float64 { return s.form(x) - origin }
		h := make([]float64, len(x))
		for i := range x {
			h[i] = form(x[i])
		}
		addLine := func(weight float64, l *line) {
			l.slope = max(0, l.slope)
			add(weight, l.miss(h, f, wf), func(x float64) (float64, float64) {
				return l.at(form(x)), math.Sqrt(l.chance) * math.Abs(form(x)-l.center)
			})
		}
		pure, any := proportion(h, f, wf), regression(h, f, wf)
		if any.at(0) < 0 {
			any = pure
		}
		addLine(s.any*free, any)
		if lo > 0 && origin == 0 {
			addLine(s.pure, pure)
		}
	}
	best := math.Inf(1)
	for _, c := range t.curves {
		best = min(best, c.miss)
	}
	noise := max(1, best/max(1, float64(len(x)-2))) // if nothing fits well, there is more noise than assumed
	sum := 0.0
	for i := range t.curves {
		c := &t.curves[i]
		c.weight *= math.Exp((best - c.miss) / 2 / noise)
		sum += c.weight
	}
	for i := range t.curves {
		t.curves[i].weight /= sum
	}
	if !finite(1 / sum) {
		return nil
	}
	return t
}

// line is a straight line: mean + slope·(x - center). chance is the variance of the slope.
type line struct{ mean, slope, center, chance float64 }

func (l *line) at(x float64) float64 { return l.mean + l.slope*(x-l.center) }

// miss sums up the weighted squares of the distances of points from the line.
func (l *line) miss(x, y, w []float64) (sum float64) {
	for i := range x {
		sum += w[i] * math.Pow(y[i]-l.at(x[i]), 2)
	}
	return sum
}

// regression returns the line of least squares.
func regression(x, y, w []float64) *line {
	var n, sx, sy, sxx, sxy float64
	for i := range x {
		n, sx, sy = n+w[i], sx+w[i]*x[i], sy+w[i]*y[i]
	}
	l := &line{mean: sy / n, center: sx / n}
	for i := range x {
		dx := x[i] - l.center
		sxx, sxy = sxx+w[i]*dx*dx, sxy+w[i]*dx*(y[i]-l.mean)
	}
	l.slope, l.chance = sxy/sxx, 1/sxx
	return l
}

// proportion returns the line of least squares through the origin.
func proportion(x, y, w []float64) *line {
	var sxx, sxy float64
	for i := range x {
		sxx, sxy = sxx+w[i]*x[i]*x[i], sxy+w[i]*x[i]*y[i]
	}
	return &line{slope: sxy / sxx, chance: 1 / sxx}
}

package chart

import (
	"math"
	"math/rand/v2"
	"slices"

	"mlfnode/grid/moments"
)

// model predicts how long trials take: a time that every trial takes, plus a product of one factor
// for each axis. Values of long axes share a level. The mean duration is smear·(floor + exp(mu +
// the sum of an effect for each axis)).
type model struct {
	*trials
	floor  float64 // seconds, such as the startup time of a program
	mu     float64
	effect [][]float64
	smear  float64 // the mean ratio of actual to predicted durations
	sigma2 float64 // variance of the logarithm

	// By axis and level: the trials that the model was fitted to, the effect as it is without
	// shrinkage, and its variance; 0, NaN and infinite for levels that have not run.
	ended, raw, chance [][]float64
	// doubt is the standard deviation of the effects of levels that have not run, see guess.
	doubt [][]float64
}

const (
	fitRows   = 8_000 // trials that the model is fitted to, and
	floorRows = 1_000 // to choose its floor from
	fitRounds = 60
	fitted    = 1e-3 // of the logarithm: a smaller change does not count
	// freedom is the number of degrees of freedom of Student's distribution; an outlier is this
	// many standard deviations away.
	freedom = 4
	outlier = 3
)

// floors are the fractions of the shortest duration that are tried as the floor.
var floors = [...]float64{0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94}

// thinned picks some rows evenly, at random so that no axis is in step with them.
func thinned(rows []int32, most int) []int32 {
	if len(rows) <= most {
		return rows
	}
	random := rand.New(rand.NewPCG(1, uint64(len(rows))))
	some := make([]int32, most)
	for i := range some {
		lo, hi := i*len(rows)/most, (i+1)*len(rows)/most
		some[i] = rows[lo+random.IntN(hi-lo)]
	}
	return some
}

// fit fits the model to trials that have ended. It chooses the floor with the best fit.
func (t *trials) fit(rows []int32) *model {
	rows = thinned(rows, fitRows)
	few := thinned(rows, floorRows)
	walls := make([]float64, len(few))
	for i, r := range few {
		walls[i] = float64(t.d.Wall[r])
	}
	slices.Sort(walls)
	low := walls[len(walls)/100]
	score := func(floor float64) float64 {
		m := t.solve(few, floor)
		return float64(len(few)) * math.Log(m.sigma2+1e-6)
	}
	best, least := 0.0, score(0)
	worse := 0
	for _, share := range floors {
		if s := score(share*low) + 2; s < least {
			best, least, worse = share*low, s, 0
		} else if worse++; worse == 3 {
			break
		}
	}
	return t.solve(rows, best)
}

// fitting is an incremental least-squares fit.
type fitting struct {
	m      *model
	rows   []int32
	y      []float64 // the logarithm of each trial's duration
	rest   []float64 // the residual, as a change of the sum of the effects
	weight []float64 // of each row
	ridge  []float64 // of each axis: the ratio of the variance of a trial to that of an effect
}

// solve fits the effects for a floor by the Gauss-Newton method, with the blocks of the
// Gauss-Seidel method. How strongly the effects of an axis are shrunk follows from how much they
// differ, as in empirical Bayes.
func (t *trials) solve(rows []int32, floor float64) *model {
	n := len(rows)
	m := &model{trials: t, floor: floor}
	f := &fitting{m: m, rows: rows, y: make([]float64, n), rest: make([]float64, n), weight: make([]float64, n),
		ridge: make([]float64, len(t.axes))}
	for a, axis := range t.axes {
		f.ridge[a] = 0.1
		m.effect, m.ended = append(m.effect, make([]float64, len(axis.Levels))),
			append(m.ended, make([]float64, len(axis.Levels)))
		for _, r := range rows {
			m.ended[a][t.levels[a][r]]++
		}
	}
	for i, r := range rows {
		wall := float64(t.d.Wall[r])
		f.y[i] = math.Log(wall)
		m.mu += math.Log(max(wall-floor, wall/20)) / float64(n)
	}
	for round := range fitRounds {
		moved := f.improve()
		f.shrink()
		if moved < fitted && round > 3 {
			break
		}
	}
	f.residuals()
	f.unshrunk()
	far := outlier * math.Sqrt(m.sigma2)
	for i, r := range rows {
		rest := f.y[i] - math.Log(floor+math.Exp(m.mu+m.effects(r)))
		m.smear += math.Exp(min(far, max(-far, rest))) / float64(n)
	}
	return m
}

// residuals computes the residuals and weights. Near the floor a trial reveals little of the
// effects, and an outlier counts little, as if the distances had Student's distribution: the first
// trials of a machine often take longer.
func (f *fitting) residuals() {
	for i, r := range f.rows {
		above := math.Exp(f.m.mu + f.m.effects(r))
		part := max(above/(f.m.floor+above), 0.03)
		rest := f.y[i] - math.Log(f.m.floor+above)
		f.rest[i], f.weight[i] = rest/part, part*part
		if f.m.sigma2 > 0 {
			f.weight[i] *= (freedom + 1) / (freedom + rest*rest/f.m.sigma2)
		}
	}
}

// improve fits mu and the effects of one axis after another, and returns how far they have moved.
func (f *fitting) improve() (moved float64) {
	f.residuals()
	sum, all := 0.0, 0.0
	for i, w := range f.weight {
		sum, all = sum+w*f.rest[i], all+w
	}
	shift := sum / all
	f.m.mu += shift
	for i := range f.rest {
		f.rest[i] -= shift
	}
	moved = math.Abs(shift)
	for a, effect := range f.m.effect {
		levels := f.m.levels[a]
		sums, weights := make([]float64, len(effect)), make([]float64, len(effect))
		for i, r := range f.rows {
			l := levels[r]
			sums[l], weights[l] = sums[l]+f.weight[i]*f.rest[i], weights[l]+f.weight[i]
		}
		for l := range effect {
			sums[l] = (sums[l] - f.ridge[a]*effect[l]) / (weights[l] + f.ridge[a]) // now the change of the effect
			sums[l] = max(-2, min(2, sums[l]))
			effect[l] += sums[l]
			moved = max(moved, math.Abs(sums[l]))
		}
		for i, r := range f.rows {
			f.rest[i] -= sums[levels[r]]
		}
	}
	return moved
}

// shrink estimates the variance of trials, and that of the effects of each axis.
func (f *fitting) shrink() {
	squares, free := 0.0, float64(len(f.rows))-1
	for i, w := range f.weight {
		squares += w * f.rest[i] * f.rest[i]
	}
	weights := make([][]float64, len(f.m.effect))
	for a, effect := range f.m.effect {
		weights[a] = make([]float64, len(effect))
		for i, r := range f.rows {
			weights[a][f.m.levels[a][r]] += f.weight[i]
		}
		for _, w := range weights[a] {
			free -= w / (w + f.ridge[a])
		}
	}
	f.m.sigma2 = squares / max(1, free)
	for a, effect := range f.m.effect {
		sum, seen := 0.0, 0.0
		for l, w := range weights[a] {
			if w > 0 {
				sum, seen = sum+effect[l]*effect[l]+f.m.sigma2/(w+f.ridge[a]), seen+1
			}
		}
		f.ridge[a] = min(1e6, max(1e-4, f.m.sigma2/max(sum/seen, 1e-9)))
	}
}

// unshrunk computes what each level alone says of its effect. Its variance is that of the mean of
// its trials, plus that of the machine in the meantime: the levels of a slow axis run one after
// another.
func (f *fitting) unshrunk() {
	for a, effect := range f.m.effect {
		raw, chance := make([]float64, len(effect)), make([]float64, len(effect))
		weights := make([]float64, len(effect))
		for i, r := range f.rows {
			l := f.m.levels[a][r]
			raw[l], weights[l] = raw[l]+f.weight[i]*f.rest[i], weights[l]+f.weight[i]
		}
		for l, w := range weights {
			raw[l] = effect[l] + raw[l]/w
			chance[l] = (f.m.sigma2 + usualDrift*usualDrift*f.m.ended[a][l]) / w
		}
		f.m.raw, f.m.chance = append(f.m.raw, raw), append(f.m.chance, chance)
	}
}

func (m *model) effects(r int32) (sum float64) {
	for a, levels := range m.levels {
		sum += m.effect[a][levels[r]]
	}
	return sum
}

// predict returns the mean duration of a trial with these effects, in seconds.
func (m *model) predict(effects float64) float64 { return m.smear * (m.floor + math.Exp(m.mu+effects)) }

// guess sets the effects of levels that have not run: by the trend of the axis if it has one, else
// they are like those that have run on average. It returns these levels.
func (m *model) guess() []Unseen {
	all := []Unseen{}
	for a, axis := range m.axes {
		m.doubt = append(m.doubt, make([]float64, len(axis.Levels)))
		if !slices.Contains(m.ended[a], 0) {
			continue
		}
		values := make([]float64, len(axis.Levels))
		var seen moments.Moments
		for l, level := range axis.Levels {
			values[l] = float64(level.Number)
			if m.ended[a][l] > 0 {
				seen.Add(m.raw[a][l])
			}
		}
		differ := 1.0 // one value says nothing about the others
		if seen.N > 1 {
			differ = max(usualDrift, seen.SD())
		}
		t := fitTrend(values, m.raw[a], m.chance[a])
		u := Unseen{Key: axis.Key, Line: t != nil}
		for l, ended := range m.ended[a] {
			if ended > 0 {
				continue
			}
			u.Labels = append(u.Labels, axis.Levels[l].Label)
			if m.doubt[a][l] = differ; t != nil {
				m.effect[a][l], m.doubt[a][l] = t.at(values[l])
			}
		}
		all = append(all, u)
	}
	return all
}

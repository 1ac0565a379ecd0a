// Package moments accumulates values: their number, mean and standard deviation.
package moments

import "math"

// Moments accumulates values relative to the first one, to preserve precision.
type Moments struct {
	N              int64
	first, sum, sq float64
}

// Add adds a value.
func (m *Moments) Add(f float64) {
	if m.N == 0 {
		m.first = f
	}
	m.N++
	f -= m.first
	m.sum += f
	m.sq += f * f
}

// Merge adds all values of more.
func (m *Moments) Merge(more *Moments) {
	if m.N == 0 {
		*m = *more
		return
	}
	n, shift := float64(more.N), more.first-m.first
	m.N += more.N
	m.sum += more.sum + n*shift
	m.sq += more.sq + 2*shift*more.sum + n*shift*shift
}

// Mean returns the mean. It is NaN if there are no values.
func (m *Moments) Mean() float64 { return m.first + m.sum/float64(m.N) }

// M2 returns the sum of squared deviations from the mean.
func (m *Moments) M2() float64 {
	if m.N == 0 {
		return 0
	}
	return max(0, m.sq-m.sum*m.sum/float64(m.N))
}

// SD returns the sample standard deviation. It is NaN if there are fewer than two values.
func (m *Moments) SD() float64 {
	if m.N < 2 {
		return math.NaN()
	}
	return math.Sqrt(m.M2() / float64(m.N-1))
}

// Half returns half the width of the 95 % confidence interval of the mean.
func (m *Moments) Half() float64 {
	return student(m.N-1) * m.SD() / math.Sqrt(float64(m.N))
}

// student returns the 97.5 % quantile of Student's t distribution, from
// https://en.wikipedia.org/wiki/Student%27s_t-distribution.
func student(freedom int64) float64 {
	table := [...]float64{math.NaN(), 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201,
		2.179, 2.160, 2.145}
	if freedom < int64(len(table)) {
		return table[max(freedom, 0)]
	}
	return 1.96 + 2.4/float64(freedom)
}

package moments

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestMoments compares the moments with those of a two-pass computation, also for values that are
// close together but far from zero.
func TestMoments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]float64{0, 1, -1e9, 1e12}).Draw(t, "base")
		values := rapid.SliceOfN(rapid.Float64Range(-100, 100), 0, 50).Draw(t, "values")
		var m Moments
		parts := make([]Moments, rapid.IntRange(1, 4).Draw(t, "parts")) // merged below
		mean, square := 0.0, 0.0
		for i := range values {
			values[i] += base
			parts[i*len(parts)/len(values)].Add(values[i])
			mean += (values[i] - base) / float64(len(values))
		}
		for i := range parts {
			m.Merge(&parts[i])
		}
		for _, f := range values {
			square += (f - base - mean) * (f - base - mean)
		}
		near := func(got, want float64) bool { return math.Abs(got-want) <= 1e-9*(1+math.Abs(want)) }
		switch n := float64(len(values)); {
		case n == 0:
			if !math.IsNaN(m.Mean()) || m.M2() != 0 {
				t.Fatalf("no values have the mean %v and the squares %v", m.Mean(), m.M2())
			}
		case !near(m.Mean()-base, mean) && !near(m.Mean(), base+mean), !near(m.M2(), square):
			t.Fatalf("got the mean %v and the squares %v, want %v and %v", m.Mean(), m.M2(), base+mean, square)
		case n == 1:
			if !math.IsNaN(m.SD()) || !math.IsNaN(m.Half()) {
				t.Fatalf("one value has the deviation %v", m.SD())
			}
		case !near(m.SD(), math.Sqrt(square/(n-1))):
			t.Fatalf("got the deviation %v, want %v", m.SD(), math.Sqrt(square/(n-1)))
		}
		if len(values) == 4 && m.SD() > 0 && !near(m.Half(), 3.182*m.SD()/2) { // the quantile for 3 degrees of freedom
			t.Fatalf("got the half width %v for the deviation %v", m.Half(), m.SD())
		}
	})
}

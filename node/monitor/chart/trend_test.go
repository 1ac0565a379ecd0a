package chart

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
)

// known returns the logarithms of what duration says of the first values, and NaN for the others.
func known(values []float64, n int, duration func(x float64) float64) []float64 {
	logs := make([]float64, len(values))
	for l := range logs {
		if logs[l] = math.NaN(); l < n {
			logs[l] = math.Log(duration(values[l]))
		}
	}
	return logs
}

func TestTrend(t *testing.T) {
	eight, half := []float64{1, 2, 3, 4, 5, 6, 7, 8}, []float64{16, 32, 64, 128, 256}
	linear := func(x float64) float64 { return 0.3 * x }
	for _, c := range []struct {
		name      string
		values    []float64
		known     int
		noise     float64 // the standard deviation that is assumed
		duration  func(x float64) float64
		tolerance float64
	}{
		{"linear, of two", eight, 2, 1e-4, linear, 0.001},
		{"linear, of two and noise", eight, 2, 0.05, linear, 0.03},
		{"linear, of two of tens", []float64{10, 20, 30, 1000}, 2, 1e-4, linear, 0.002},
		{"linear from 0", []float64{0, 1, 2, 3, 4}, 2, 1e-4, func(x float64) float64 { return 2 + x }, 0.3},
		{"with an offset, of two", eight, 2, 1e-4, func(x float64) float64 { return 3 + x }, 0.25},
		{"with an offset, of three", eight, 3, 1e-4, func(x float64) float64 { return 3 + x }, 0.001},
		{"from a negative value", []float64{-2, -1, 0, 1, 2}, 3, 1e-4, func(x float64) float64 { return 3 + x }, 0.001},
		{"falling", []float64{8, 7, 6, 5, 4, 3, 2, 1}, 2, 1e-4, linear, 0.001},
		{"square, of two", eight, 2, 1e-4, func(x float64) float64 { return x * x }, 0.001},
		{"inverse, of two", half, 2, 1e-4, func(x float64) float64 { return 100 / x }, 0.001},
		{"inverse with an offset, of three", half, 3, 1e-4, func(x float64) float64 { return 1 + 100/x }, 0.001},
		{"square root, of three", eight, 3, 1e-4, math.Sqrt, 0.001},
		{"none", eight, 2, 0.05, func(float64) float64 { return 3 }, 0.05},
		{"a difference of one deviation", eight, 2, 0.05, func(x float64) float64 { return 3 + 0.1*x }, 0.17},
		{"back and forth", eight, 6, 0.01, func(x float64) float64 { return 3 + math.Mod(x, 2) }, 0.2},
	} {
		chance := slices.Repeat([]float64{c.noise * c.noise}, len(c.values))
		trend := fitTrend(c.values, known(c.values, c.known, c.duration), chance)
		for _, x := range c.values {
			if log, _ := trend.at(x); math.Abs(math.Exp(log)/c.duration(x)-1) > c.tolerance {
				t.Errorf("%s: %v: got %.4g, want %.4g within %g", c.name, x, math.Exp(log), c.duration(x), c.tolerance)
			}
		}
	}
	nan := math.NaN()
	for _, values := range [][]float64{{1, nan, 3}, {1, 2, math.Inf(1)}, {2, 2, 2}} {
		if fitTrend(values, []float64{0, 1, nan}, []float64{1, 1, 1}) != nil {
			t.Errorf("%v: got a trend, want none", values)
		}
	}
	if fitTrend(eight, known(eight, 1, linear), make([]float64, 8)) != nil {
		t.Error("one value: got a trend, want none")
	}
}

// TestTrendIsLessSureFarAway checks that the deviation grows with the distance from what is known.
func TestTrendIsLessSureFarAway(t *testing.T) {
	values := []float64{1, 2, 4, 8, 16}
	trend := fitTrend(values, known(values, 2, func(x float64) float64 { return 1 + 0.2*x }),
		slices.Repeat([]float64{0.01}, 5))
	for i := 2; i < len(values)-1; i++ {
		_, near := trend.at(values[i])
		if _, far := trend.at(values[i+1]); !(far > near) {
			t.Errorf("deviation at %v: got %.3g, want more than the %.3g at %v", values[i+1], far, near, values[i])
		}
	}
}

// TestTrendProperties checks for any values and factors that what is predicted is finite, and
// that it does not depend on the units of either.
func TestTrendProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.SampledFrom([]int{-1000, 0, 1}).Draw(t, "least")
		whole := rapid.SliceOfNDistinct(rapid.IntRange(least, 100_000), 3, 20, rapid.ID).Draw(t, "eighths")
		n := rapid.IntRange(2, len(whole)-1).Draw(t, "known")
		values, logs, chance := make([]float64, len(whole)), make([]float64, len(whole)), make([]float64, len(whole))
		for l := range whole {
			values[l] = float64(whole[l]) / 8
			logs[l], chance[l] = rapid.Float64Range(-10, 10).Draw(t, "log"),
				math.Exp(rapid.Float64Range(-12, 3).Draw(t, "chance"))
			if l >= n {
				logs[l] = math.NaN()
			}
		}
		trend := fitTrend(values, logs, chance)
		longer, other := make([]float64, len(values)), make([]float64, len(values))
		for l := range values {
			longer[l], other[l] = logs[l]+math.Log(60), values[l]*1024
		}
		minutes, units := fitTrend(values, longer, chance), fitTrend(other, logs, chance)
		for l, x := range values {
			got, deviation := trend.at(x)
			if !finite(got) || !finite(deviation) {
				t.Fatalf("%v: got %v ± %v", x, got, deviation)
			}
			if m, _ := minutes.at(x); math.Abs(m-math.Log(60)-got) > 1e-6 {
				t.Fatalf("%v: got %v, and in another unit of time %v", x, got, m)
			}
			if u, _ := units.at(other[l]); math.Abs(u-got) > 1e-6 {
				t.Fatalf("%v: got %v, and in another unit %v", x, got, u)
			}
		}
	})
}

// TestSeedsHaveNoTrend checks that a seed, which runs first and changes nothing, gets no trend from
// noise: sweeps are predicted as well as if its values were texts.
func TestSeedsHaveNoTrend(t *testing.T) {
	off := func(first string) float64 {
		s := spaceOf(t, nil, numbers("seed", first), numbers("way", "plain careful"), numbers("repeat", "0 1 2 3 4 5"))
		var all []float64
		for seed := range uint64(100) {
			r := record(t, s, grid.OrderIndex, 2, seed, func(get func(string) string) float64 {
				return map[string]float64{"plain": 3, "careful": 6}[get("way")]
			})
			d, rest := r.at(t, 0.25+rand.New(rand.NewPCG(seed, 1)).Float64()/4)
			all = append(all, math.Abs(float64(viewOf(t, d, "").ETA().Seconds)/rest-1))
		}
		slices.Sort(all)
		return all[90]
	}
	text, number := off("a b c d e f g h"), off("1 2 3 4 5 6 7 8")
	t.Logf("one in ten is off by %.3f with texts, and by %.3f with numbers", text, number)
	if number > text+0.03 {
		t.Errorf("one in ten: got off by %.3f with numbers, want about the %.3f of texts", number, text)
	}
}

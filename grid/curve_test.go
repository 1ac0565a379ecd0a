package grid

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawPoints(t *rapid.T, most int) []Point {
	step := rapid.OneOf(rapid.Map(rapid.Int64Range(-largestStep, largestStep), func(i int64) float64 {
		return float64(i)
	}), rapid.Float64())
	if rapid.Bool().Draw(t, "few steps") {
		step = rapid.Map(rapid.IntRange(0, 100), func(i int) float64 { return float64(i) })
	}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Point {
		return Point{step.Draw(t, "step"), rapid.Float32().Draw(t, "value")}
	}), 0, most).Draw(t, "points")
}

// TestPackCurve checks that Points returns what PackCurve encoded.
func TestPackCurve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := drawPoints(t, MaxPoints)
		got, err := PackCurve(points).Points()
		if err != nil || !slices.Equal(got, points) {
			t.Fatalf("got %v, %v, want %v", got, err, points)
		}
	})
}

// FuzzCurve decodes arbitrary input, as a node may send it: the result is an error, or points that
// are finite and bounded in number.
func FuzzCurve(f *testing.F) {
	f.Add([]byte(PackCurve([]Point{{1, 2}, {3, 4}, {2, -1}})))
	f.Add([]byte(PackCurve([]Point{{0.5, 2}})))
	f.Add([]byte{wholeSteps, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0, 0})
	f.Add([]byte{anySteps, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		points, err := Curve(b).Points()
		if err == nil && len(points) > MaxPoints {
			t.Fatalf("got %d points", len(points))
		}
		for _, p := range points {
			if !finite(p.Step) || !finite(float64(p.Value)) {
				t.Fatalf("got %v", p)
			}
		}
		if again, err2 := PackCurve(points).Points(); err == nil && (err2 != nil || !slices.Equal(again, points)) {
			t.Fatalf("got %v, %v, want %v", again, err2, points)
		}
	})
}

// TestCurveBuilder reduces any number of points to a few, in order: the first, the last, and the
// lowest and the highest of each stride.
func TestCurveBuilder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := drawPoints(t, rapid.SampledFrom([]int{3, MaxPoints, 1000}).Draw(t, "most"))
		var b CurveBuilder
		for i, p := range points {
			b.Add(p.Step, float64(p.Value))
			checkKept(t, &b, points[:i+1])
		}
	})
}

func checkKept(t *rapid.T, b *CurveBuilder, all []Point) {
	kept := b.Points()
	if len(kept) > MaxPoints || len(all) <= 2*maxStrides && !slices.Equal(kept, all) {
		t.Fatalf("of %d points %d are kept: %v of %v", len(all), len(kept), kept, all)
	}
	from := 0
	for _, p := range kept { // kept must be a subsequence
		i := slices.Index(all[from:], p)
		if i < 0 {
			t.Fatalf("%v is not at its place of %v", p, all)
		}
		from += i + 1
	}
	if kept[0] != all[0] || kept[len(kept)-1] != all[len(all)-1] {
		t.Fatalf("the ends of %v are not those of %v", kept, all)
	}
	if int64(len(all)) > b.size*maxStrides || b.size > 2 && int64(len(all)) <= b.size/2*maxStrides {
		t.Fatalf("%d points are in strides of %d", len(all), b.size)
	}
	for lo := int64(0); lo < int64(len(all)); lo += b.size {
		part := all[lo:min(lo+b.size, int64(len(all)))]
		byValue := func(p, q Point) int { return cmp.Compare(p.Value, q.Value) }
		for _, want := range []float32{slices.MinFunc(part, byValue).Value, slices.MaxFunc(part, byValue).Value} {
			if !slices.ContainsFunc(kept, func(p Point) bool { return p.Value == want && slices.Contains(part, p) }) {
				t.Fatalf("the extreme %v of stride %v is not in %v", want, part, kept)
			}
		}
	}
}

// TestCurveBuilderNotFinite checks that values that are not finite are dropped.
func TestCurveBuilderNotFinite(t *testing.T) {
	var b CurveBuilder
	if got := b.Points(); got != nil {
		t.Errorf("no points: got %v", got)
	}
	b.Add(1, math.NaN())
	b.Add(2, 1e300)
	b.Add(3, 5)
	b.Add(math.Inf(1), 6)
	b.Add(4, math.Inf(-1))
	if got, want := b.Points(), []Point{{3, 5}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

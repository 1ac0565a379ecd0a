package grid

import (
	"encoding/binary"
	"errors"
	"math"
)

// Limits for the curves of one attempt.
const (
	MaxPoints = 64 // points in a curve
	MaxCurves = 32 // curves of an attempt
)

// StepNames returns the keys under which programs report the step of a value. The first key that is
// present wins.
func StepNames() [3]string { return [...]string{"step", "epoch", "iteration"} }

// CurveShare selects the trials whose curves are stored: all, some or none.
type CurveShare int

// The shares. SomeCurves stores the curves of one trial in sixteen, spread evenly over a sweep.
const (
	AllCurves CurveShare = iota
	SomeCurves
	NoCurves
)

// Keeps reports whether the curves of the trial with this index are stored.
func (s CurveShare) Keeps(index int64) bool {
	some := uint64(index)*0x9e3779b97f4a7c15>>32%16 == 0 // multiplication by the golden ratio spreads the indexes
	return s == AllCurves || s == SomeCurves && some
}

// Point is the value of a metric at a step of the program.
type Point struct {
	Step  float64
	Value float32
}

// Curve is the packed history of one metric of an attempt: at most MaxPoints points, in the order
// in which the program reported them. PackCurve encodes it, and Points decodes it. The layout is
//
//	0, n × (varint step - previous step, float32)  if all steps are whole numbers
//	1, n × (float64 step, float32)                 otherwise
type Curve []byte

const (
	wholeSteps = 0
	anySteps   = 1

	// largestStep bounds whole steps: float64 represents all whole numbers up to this one exactly,
	// and the difference of two steps does not overflow.
	largestStep = 1 << 53
)

// PackCurve packs points.
func PackCurve(points []Point) Curve {
	whole := true
	for _, p := range points {
		whole = whole && p.Step == math.Trunc(p.Step) && math.Abs(p.Step) <= largestStep
	}
	c, before := Curve{anySteps}, int64(0)
	if whole {
		c[0] = wholeSteps
	}
	for _, p := range points {
		if whole {
			c = binary.AppendVarint(c, int64(p.Step)-before)
			before = int64(p.Step)
		} else {
			c = binary.LittleEndian.AppendUint64(c, math.Float64bits(p.Step))
		}
		c = binary.LittleEndian.AppendUint32(c, math.Float32bits(p.Value))
	}
	return c
}

// errCurve reports a curve that cannot be decoded.
var errCurve = errors.New("a curve is damaged")

// Points decodes the curve. It returns an error if the encoding is invalid or a number is not
// finite.
func (c Curve) Points() ([]Point, error) {
	if len(c) == 0 || c[0] > anySteps {
		return nil, errCurve
	}
	var points []Point
	step := int64(0)
	for rest := []byte(c[1:]); len(rest) > 0; rest = rest[4:] {
		var p Point
		n := 8
		if c[0] == wholeSteps {
			var delta int64
			if delta, n = binary.Varint(rest); n <= 0 || delta > 2*largestStep || delta < -2*largestStep {
				return nil, errCurve
			}
			if step += delta; step > largestStep || step < -largestStep {
				return nil, errCurve
			}
			p.Step = float64(step)
		} else if len(rest) >= n {
			p.Step = math.Float64frombits(binary.LittleEndian.Uint64(rest))
		}
		if len(rest) < n+4 || len(points) == MaxPoints {
			return nil, errCurve
		}
		rest = rest[n:]
		p.Value = math.Float32frombits(binary.LittleEndian.Uint32(rest))
		if !finite(p.Step) || !finite(float64(p.Value)) {
			return nil, errCurve
		}
		points = append(points, p)
	}
	return points, nil
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// CurveBuilder reduces any number of points to a curve. It divides the points into strides of equal
// length and keeps the lowest and the highest point of each stride, and the first and the last
// point overall; when there are too many strides, it merges them in pairs. No peak is lost, however
// long the program runs. The zero value is an empty curve.
type CurveBuilder struct {
	count       int64 // points added so far
	first, last placed
	strides     []stride
	size        int64 // points per stride
	filled      int64 // points in the newest stride
}

// maxStrides leaves room for the first and the last point.
const maxStrides = (MaxPoints - 2) / 2

// placed is a point with its position in the whole curve.
type placed struct {
	Point
	at int64
}

// stride holds the lowest and the highest of several consecutive points.
type stride struct{ low, high placed }

// Add appends a point. It drops values that are not finite as float32.
func (b *CurveBuilder) Add(step, value float64) {
	p := placed{Point{step, float32(value)}, b.count}
	if !finite(step) || !finite(float64(p.Value)) {
		return
	}
	if b.count == 0 {
		b.first, b.size = p, 2
	}
	b.count++
	b.last = p
	if len(b.strides) > 0 && b.filled == b.size && len(b.strides) == maxStrides {
		b.join()
	}
	if len(b.strides) == 0 || b.filled == b.size {
		b.strides, b.filled = append(b.strides, stride{p, p}), 1
		return
	}
	b.filled++
	b.strides[len(b.strides)-1].join(stride{p, p})
}

// join merges strides in pairs. Their number is odd, so the newest stride stays half filled.
func (b *CurveBuilder) join() {
	n := 0
	for i := 0; i < len(b.strides); i += 2 {
		s := b.strides[i]
		if i+1 < len(b.strides) {
			s.join(b.strides[i+1])
		}
		b.strides[n] = s
		n++
	}
	b.strides = b.strides[:n]
	b.size *= 2
}

// join merges a later stride into s. Among equal values the first counts as the lowest and the last
// as the highest, so that a stride of two points keeps both.
func (s *stride) join(later stride) {
	if later.low.Value < s.low.Value {
		s.low = later.low
	}
	if later.high.Value >= s.high.Value {
		s.high = later.high
	}
}

// Points returns the kept points in the order in which they were added.
func (b *CurveBuilder) Points() []Point {
	if b.count == 0 {
		return nil
	}
	points, at := []Point{b.first.Point}, b.first.at
	add := func(p placed) {
		if p.at > at {
			points, at = append(points, p.Point), p.at
		}
	}
	for _, s := range b.strides {
		if s.low.at > s.high.at {
			s.low, s.high = s.high, s.low
		}
		add(s.low)
		add(s.high)
	}
	add(b.last)
	return points
}

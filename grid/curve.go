package grid

import (
	"encoding/binary"
	"errors"
	"math"
)

// Bounds on the curves of one attempt.
const (
	MaxPoints = 64 // of a curve
	MaxCurves = 32 // of an attempt
)

// StepNames are the names under which programs say which step of a curve a value belongs to. The first one that is there counts.
func StepNames() [3]string { return [...]string{"step", "epoch", "iteration"} }

// CurveShare says of which trials curves are stored: of all, of some, or of none.
type CurveShare int

// The shares. SomeCurves are those of one trial in sixteen, spread evenly over a sweep.
const (
	AllCurves CurveShare = iota
	SomeCurves
	NoCurves
)

// Keeps reports whether the curves of a trial are stored.
func (s CurveShare) Keeps(index int64) bool {
	some := uint64(index)*0x9e3779b97f4a7c15>>32%16 == 0 // spread by the golden ratio
	return s == AllCurves || s == SomeCurves && some
}

// Point is the value of a metric at a step of the program.
type Point struct {
	Step  float64
	Value float32
}

// Curve is how one metric of an attempt went: at most MaxPoints points in the order in which the program reported them, packed. PackCurve
// packs, and Points unpacks. The layout is
//
//	0, n × (varint step - step before, float32)    when all steps are whole numbers
//	1, n × (float64 step, float32)                 else
type Curve []byte

const (
	wholeSteps = 0
	anySteps   = 1

	// largestStep bounds whole steps: a float64 holds all whole numbers up to here, and no difference of two overflows.
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

// errCurve means that a curve can't be unpacked.
var errCurve = errors.New("a curve is damaged")

// Points returns the points of a curve. A curve that PackCurve has not made, or one of numbers that are not finite, is an error.
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

// CurveBuilder makes a curve of any number of points. It divides them into strides of equally many neighbours and keeps the lowest and
// the highest of each, besides the first and the last point of all; when there are too many strides it joins them in pairs. So no
// peak is lost, however long the program runs. The zero value is an empty curve.
type CurveBuilder struct {
	count       int64 // of all points
	first, last placed
	strides     []stride
	size        int64 // points of a stride
	filled      int64 // points of the newest stride
}

// maxStrides leaves room for the first and the last point.
const maxStrides = (MaxPoints - 2) / 2

// placed is a point with its place among all of the curve.
type placed struct {
	Point
	at int64
}

// stride is the lowest and the highest of some neighbouring points.
type stride struct{ low, high placed }

// Add adds the next point. One that is not finite, as float32, is left out.
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

// join joins strides in pairs. There is an odd number of them, so the newest one stays half filled.
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

// join adds a later stride to s. Of equal values the first counts as the lowest and the last as the highest, so that both points of a
// stride of two are kept.
func (s *stride) join(later stride) {
	if later.low.Value < s.low.Value {
		s.low = later.low
	}
	if later.high.Value >= s.high.Value {
		s.high = later.high
	}
}

// Points returns the points that are kept, in the order in which they came.
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

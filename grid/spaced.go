package grid

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"

	"github.com/cockroachdb/apd/v3"
)

// spaced is n numbers at even distances from a to b, or 10 to the power of them.
type spaced struct {
	a, step *big.Rat
	n       int64
	power   bool
}

// The limits keep neighbours apart as 64-bit floats and powers within their range.
const (
	maxPower     = 300
	minPowerStep = 1e-12
	minLineStep  = 1.0 / (1 << 51) // as a share of the largest value: two units in the last place
)

func newSpaced(key, form string, numbers []json.Number) (series, *flaw) {
	if len(numbers) != 3 {
		return nil, flawf("Give a, b and n, like ["+spacedExample(form)+"].", "%s is a %s of %s", key, form, quantity(len(numbers), "number"))
	}
	a, okA := parseDecimal(string(numbers[0]))
	b, okB := parseDecimal(string(numbers[1]))
	n, err := strconv.ParseInt(string(numbers[2]), 10, 64)
	switch {
	case !okA:
		return nil, notDecimal(key, "start", string(numbers[0]))
	case !okB:
		return nil, notDecimal(key, "end", string(numbers[1]))
	case err != nil || n < 1:
		return nil, flawf("Give the number of values as a whole number from 1.", "%s asks for %q values", key, numbers[2])
	}
	s := &spaced{a: a.rat(), step: new(big.Rat), n: n, power: form == "logspace"}
	if n > 1 {
		s.step.Sub(b.rat(), s.a)
		s.step.Quo(s.step, new(big.Rat).SetInt64(n-1))
	}
	return s, s.check(key, b.rat())
}

func spacedExample(form string) string {
	if form == "logspace" {
		return "-4, -1, 4"
	}
	return "0, 1, 11"
}

// check refuses values that would run together or leave the range of floats.
func (s *spaced) check(key string, b *big.Rat) *flaw {
	first, _ := s.a.Float64()
	last, _ := b.Float64()
	size := max(math.Abs(first), math.Abs(last))
	step, _ := s.step.Float64()
	step = math.Abs(step)
	switch {
	case s.n > 1 && s.step.Sign() == 0:
		return flawf("Give the one value alone.", "%s runs from a number to the same number, so its values are all the same", key)
	case s.power && size > maxPower, math.IsInf(size, 0):
		return flawf("A logspace holds 10^a to 10^b.", "%s leaves the range of 64-bit numbers", key)
	case s.n > 1 && s.power && step < minPowerStep, s.n > 1 && !s.power && step < size*minLineStep:
		return flawf("Ask for fewer.", "%s has values so close together that 64-bit numbers can't tell them apart", key)
	}
	return nil
}

func (s *spaced) count() int64 { return s.n }

func (s *spaced) at(i int64) Value {
	x := new(big.Rat).SetInt64(i)
	x.Mul(x, s.step).Add(x, s.a)
	var f float64
	if s.power {
		f = power(x)
	} else {
		f, _ = x.Float64()
	}
	return Value{Text: formatFloat(f), Kind: Number}
}

// power gives the float that is nearest to 10^x. It is the same on every machine, which math.Pow is not.
func power(x *big.Rat) float64 {
	if x.IsInt() {
		f, _ := strconv.ParseFloat("1e"+x.Num().String(), 64) // within maxPower
		return f
	}
	const digits = 30 // far more than the 17 of a float, so that rounding twice does no harm
	exponent, _, err := apd.NewFromString(x.FloatString(digits + 3))
	if err != nil {
		panic("grid: " + err.Error()) // FloatString writes a decimal
	}
	var y apd.Decimal
	if _, err := apd.BaseContext.WithPrecision(digits).Pow(&y, apd.New(10, 0), exponent); err != nil {
		panic("grid: " + err.Error()) // within maxPower
	}
	f, _ := strconv.ParseFloat(y.String(), 64)
	return f
}

func (s *spaced) find(v Value) (int64, bool) {
	d, ok := parseDecimal(v.Text)
	if !ok || v.Kind != Number {
		return 0, false
	}
	guess := s.guess(d)
	for i := max(guess-1, 0); i <= guess+1 && i < s.n; i++ {
		if s.at(i) == v {
			return i, true
		}
	}
	return 0, false
}

// guess gives the position of a value, at most one off.
func (s *spaced) guess(d decimal) int64 {
	x := d.rat()
	if s.power {
		f, _ := x.Float64()
		if f <= 0 || math.IsInf(f, 0) {
			return -2
		}
		x.SetFloat64(math.Log10(f))
	}
	if s.step.Sign() == 0 {
		return 0
	}
	x.Sub(x, s.a).Quo(x, s.step)
	f, _ := x.Float64()
	if math.Abs(f) > math.MaxInt64/2 {
		return -2
	}
	return int64(math.Round(f))
}

package space

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"

	"mlfnode/grid/problem"
)

// spacedSeries is n evenly spaced numbers from a to b, or 10 to the power of them.
type spacedSeries struct {
	a, step *big.Rat
	n       int64
	power   bool
}

// The limits keep neighbours distinct as 64-bit floats and powers in range.
const (
	maxPower     = 300
	minPowerStep = 1e-12
	minLineStep  = 1.0 / (1 << 51) // relative to the largest value: two units in the last place
)

func newLinspace(key string, numbers []json.Number) (series, *problem.Error) {
	return newSpaced(key, "linspace", numbers)
}

func newLogspace(key string, numbers []json.Number) (series, *problem.Error) {
	return newSpaced(key, "logspace", numbers)
}

func newSpaced(key, form string, numbers []json.Number) (series, *problem.Error) {
	if len(numbers) != 3 {
		return nil, problem.Errorf("Give a, b and n, like ["+spacedExample(form)+"].", "%s is a %s of %s", key, form,
			quantity(len(numbers), "number"))
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
		return nil, problem.Errorf("Give the number of values as a whole number from 1.", "%s asks for %q values", key,
			numbers[2])
	}
	s := &spacedSeries{a: a.rat(), step: new(big.Rat), n: n, power: form == "logspace"}
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

// check returns a problem if values would coincide or leave the range of floats.
func (s *spacedSeries) check(key string, b *big.Rat) *problem.Error {
	first, _ := s.a.Float64()
	last, _ := b.Float64()
	size := max(math.Abs(first), math.Abs(last))
	step, _ := s.step.Float64()
	step = math.Abs(step)
	switch {
	case s.n > 1 && s.step.Sign() == 0:
		return problem.Errorf("Give the one value alone.",
			"%s runs from a number to the same number, so its values are all the same", key)
	case s.power && size > maxPower, math.IsInf(size, 0):
		return problem.Errorf("A logspace holds 10^a to 10^b.", "%s leaves the range of 64-bit numbers", key)
	case s.n > 1 && s.power && step < minPowerStep, s.n > 1 && !s.power && step < size*minLineStep:
		return problem.Errorf("Ask for fewer.",
			"%s has values so close together that 64-bit numbers can't tell them apart", key)
	}
	return nil
}

func (s *spacedSeries) count() int64 { return s.n }

func (s *spacedSeries) at(i int64) Value {
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

// powerBits is the precision of powers, far more than the 53 bits of a float, so that double
// rounding does no harm.
const powerBits = 192

// ln10 is the natural logarithm of 10 (OEIS A002392).
const ln10 = "2.302585092994045684017991454684364207601101488628772976033327900967572609677352480235997205"

// power returns the float nearest to 10^x. Unlike math.Pow, it is the same on every machine.
func power(x *big.Rat) float64 {
	whole, rest := new(big.Int).DivMod(x.Num(), x.Denom(), new(big.Int))
	ten := new(big.Float).SetPrec(powerBits).SetInt(pow10(int(new(big.Int).Abs(whole).Int64())))
	y := exp10(new(big.Rat).SetFrac(rest, x.Denom()))
	if whole.Sign() < 0 {
		y.Quo(y, ten)
	} else {
		y.Mul(y, ten)
	}
	f, _ := y.Float64()
	return f
}

// exp10 returns 10^x for 0 ≤ x < 1. It sums the series of e^z for a z reduced by repeated halving,
// and then squares the result as many times.
func exp10(x *big.Rat) *big.Float {
	const halvings, terms = 16, 12 // the first omitted term is below 2^-190
	z, _, err := big.ParseFloat(ln10, 10, powerBits, big.ToNearestEven)
	if err != nil {
		panic("grid: " + err.Error()) // ln10 is a number
	}
	z.Mul(z, new(big.Float).SetPrec(powerBits).SetRat(x))
	z.SetMantExp(z, -halvings)
	one := big.NewFloat(1).SetPrec(powerBits)
	y := new(big.Float).Copy(one)
	for k := int64(terms); k > 0; k-- {
		y.Mul(y, z)
		y.Quo(y, new(big.Float).SetInt64(k))
		y.Add(y, one)
	}
	for range halvings {
		y.Mul(y, y)
	}
	return y
}

func (s *spacedSeries) find(v Value) (int64, bool) {
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

// guess returns the position of a value, off by at most one.
func (s *spacedSeries) guess(d decimal) int64 {
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

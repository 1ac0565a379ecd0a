package space

import (
	"encoding/json"
	"math/big"
	"strconv"

	"mlfnode/grid/problem"
)

// interval is start + i×step for i below n, with a common decimal scale. Values are computed from
// their index, so errors do not accumulate.
type interval struct {
	scale       int
	start, step *big.Int
	n           int64

	small     bool // every value fits in 64 bits: first and by equal start and step
	first, by int64
}

func newInterval(key string, numbers []json.Number) (series, *problem.Error) {
	const hint = "Give start, end and, if it isn't 1, step: an interval holds start but not end."
	if len(numbers) != 2 && len(numbers) != 3 {
		return nil, problem.Errorf(hint, "%s is an interval of %s", key, quantity(len(numbers), "number"))
	}
	part := [3]decimal{2: {big.NewInt(1), 0}}
	scale := 0
	for i, n := range numbers {
		d, ok := parseDecimal(string(n))
		if !ok {
			return nil, notDecimal(key, [...]string{"start", "end", "step"}[i], string(n))
		}
		part[i], scale = d, max(scale, d.scale)
	}
	v := &interval{scale: scale, start: part[0].at(scale), step: part[2].at(scale)}
	if f := v.countValues(key, part[1].at(scale), numbers); f != nil {
		return nil, f
	}
	last := v.big(v.n - 1)
	if v.scale > maxDigits || len(v.start.String()) > maxDigits || len(last.String()) > maxDigits {
		return nil, problem.Errorf("Use numbers that are closer together.", "%s has values of more than %d digits", key,
			maxDigits)
	}
	if v.start.IsInt64() && v.step.IsInt64() && last.IsInt64() {
		v.small, v.first, v.by = true, v.start.Int64(), v.step.Int64()
	}
	return v, nil
}

// countValues sets the number of values, which is ⌈(end − start) / step⌉.
func (v *interval) countValues(key string, end *big.Int, numbers []json.Number) *problem.Error {
	way := new(big.Int).Sub(end, v.start)
	switch {
	case v.step.Sign() == 0:
		return problem.Errorf("Use a step that leads from start to end.", "%s has step 0", key)
	case way.Sign() == 0:
		return problem.Errorf("The end is not part of an interval, so make it larger, or give the one value alone.",
			"%s has no values because its interval starts and ends at %s", key, numbers[0])
	case way.Sign() != v.step.Sign():
		step := json.Number("1")
		if len(numbers) == 3 {
			step = numbers[2]
		}
		return problem.Errorf("Swap start and end, or change the sign of the step.",
			"%s has no values because step %s leads away from %s to %s", key, step, numbers[0], numbers[1])
	}
	n, rest := new(big.Int).QuoRem(way, v.step, new(big.Int))
	if rest.Sign() != 0 {
		n.Add(n, big.NewInt(1))
	}
	if !n.IsInt64() {
		return problem.Errorf("Use a larger step.", "%s has more values than 64 bits can count", key)
	}
	v.n = n.Int64()
	return nil
}

func (v *interval) big(i int64) *big.Int {
	x := new(big.Int).Mul(v.step, big.NewInt(i))
	return x.Add(x, v.start)
}

func (v *interval) count() int64 { return v.n }

func (v *interval) at(i int64) Value {
	var digits string
	if v.small {
		digits = strconv.FormatInt(v.first+i*v.by, 10) // both operations wrap the same way, so the sum is correct
	} else {
		digits = v.big(i).String()
	}
	if v.scale == 0 && len(digits) <= maxWhole {
		return Value{Text: digits, Kind: Number}
	}
	negative := digits[0] == '-'
	if negative {
		digits = digits[1:]
	}
	return Value{Text: formatDecimal(negative, digits, v.scale), Kind: Number}
}

func (v *interval) find(w Value) (int64, bool) {
	d, ok := parseDecimal(w.Text)
	if !ok || w.Kind != Number || d.scale > v.scale {
		return 0, false
	}
	x := d.at(v.scale)
	i, rest := x.QuoRem(x.Sub(x, v.start), v.step, new(big.Int))
	ok = rest.Sign() == 0 && i.Sign() >= 0 && i.IsInt64() && i.Int64() < v.n
	return i.Int64(), ok && v.at(i.Int64()) == w
}

// slice returns the values from lo up to hi as an interval.
func (v *interval) slice(lo, hi int64) []json.Number {
	number := func(x *big.Int) json.Number {
		digits := new(big.Int).Abs(x).String()
		return json.Number(formatDecimal(x.Sign() < 0, digits, v.scale))
	}
	return []json.Number{number(v.big(lo)), number(v.big(hi)), number(v.step)}
}

func notDecimal(key, part, text string) *problem.Error {
	if isNumber(text) {
		return problem.Errorf("Use a number with fewer digits.", "%s has the %s %.40s, which is out of range", key,
			part, text)
	}
	return problem.Errorf("Use a plain decimal number, like 10, -0.5 or 1e-3.",
		"%s has the %s %q, which is not a number", key, part, text)
}

// quantity returns `1 number` or `4 numbers`.
func quantity(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

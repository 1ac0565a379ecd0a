package space

import (
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
)

// decimal is the exact number coef × 10^-scale.
type decimal struct {
	coef  *big.Int
	scale int // never negative
}

// maxExponent bounds the exponents of interval numbers, so that `1e999999999` does not become a
// gigabyte of digits.
const maxExponent = 400

// maxDigits bounds the values of an interval so that each can be parsed again: it leaves room for a
// sign, a point and an exponent.
const maxDigits = maxExponent - 20

// isNumber reports whether s is a JSON number.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || isDigit(s[0])) && isDigit(s[len(s)-1]) && json.Valid([]byte(s))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// parseDecimal parses a JSON number of moderate size.
func parseDecimal(s string) (decimal, bool) {
	if len(s) > maxExponent || !isNumber(s) {
		return decimal{}, false
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	exp := 0
	if exponent != "" {
		var err error
		if exp, err = strconv.Atoi(exponent); err != nil || exp > maxExponent || exp < -maxExponent {
			return decimal{}, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	coef, ok := new(big.Int).SetString(whole+fraction, 10)
	scale := len(fraction) - exp
	if scale < 0 {
		coef.Mul(coef, pow10(-scale))
		scale = 0
	}
	return decimal{coef, scale}, ok
}

// at returns the coefficient of d at the same or a larger scale.
func (d decimal) at(scale int) *big.Int {
	return new(big.Int).Mul(d.coef, pow10(scale-d.scale))
}

func (d decimal) rat() *big.Rat {
	return new(big.Rat).SetFrac(d.coef, pow10(d.scale))
}

func pow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// Numbers are written in full up to these lengths, and with an exponent beyond them.
const (
	maxWhole = 25 // digits before the point
	maxZeros = 15 // zeros right after the point
)

// formatDecimal formats digits × 10^-scale without redundant zeros: 110 at scale 2 is 1.1.
func formatDecimal(negative bool, digits string, scale int) string {
	for scale > 0 && len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits, scale = digits[:len(digits)-1], scale-1
	}
	if strings.Trim(digits, "0") == "" {
		return "0"
	}
	whole := len(digits) - scale
	switch {
	case whole > maxWhole || whole < -maxZeros:
		digits = strings.TrimRight(digits, "0")
		if len(digits) > 1 {
			digits = digits[:1] + "." + digits[1:]
		}
		digits += "e" + strconv.Itoa(whole-1)
	case scale > 0 && whole > 0:
		digits = digits[:whole] + "." + digits[whole:]
	case scale > 0:
		digits = "0." + strings.Repeat("0", -whole) + digits
	}
	if negative {
		return "-" + digits
	}
	return digits
}

// formatFloat returns the shortest decimal that parses to f.
func formatFloat(f float64) string {
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	mantissa, negative := strings.CutPrefix(mantissa, "-")
	exp, _ := strconv.Atoi(exponent) // FormatFloat produces a small integer here
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits, scale := whole+fraction, len(fraction)-exp
	if scale < 0 {
		digits, scale = digits+strings.Repeat("0", -scale), 0
	}
	return formatDecimal(negative, digits, scale)
}

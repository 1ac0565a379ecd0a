package grid

import (
	"math"
	"strings"
)

// Special reads the words that programs write for numbers that JSON does not have, in any case and with any sign: nan, inf,
// infinity. A metric with such a value is stored as text.
func Special(word string) (v float64, ok bool) {
	w := strings.ToLower(word)
	sign := 1
	if s, found := strings.CutPrefix(w, "-"); found {
		w, sign = s, -1
	} else {
		w = strings.TrimPrefix(w, "+")
	}
	switch w {
	case "nan", "nan(ind)", "nan(snan)":
		return math.NaN(), true
	case "inf", "infinity":
		return math.Inf(sign), true
	}
	return 0, false
}

package grid

import (
	"math"
	"strings"
)

// Special parses the words that programs write for numbers that JSON lacks, in any case and with
// any sign: nan, inf, infinity, and the spellings of C libraries, nan(0x8000) and 1.#INF. A metric
// with such a value is stored as text.
func Special(word string) (v float64, ok bool) {
	w := strings.ToLower(word)
	sign := 1
	if s, found := strings.CutPrefix(w, "-"); found {
		w, sign = s, -1
	} else {
		w = strings.TrimPrefix(w, "+")
	}
	switch {
	case w == "nan", w == "1.#ind", w == "1.#qnan", w == "1.#snan",
		strings.HasPrefix(w, "nan(") && strings.IndexByte(w, ')') == len(w)-1:
		return math.NaN(), true
	case w == "inf", w == "infinity", w == "1.#inf":
		return math.Inf(sign), true
	}
	return 0, false
}

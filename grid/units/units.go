// Package units parses durations and sizes as people write them in flags, project.yaml and
// node.yaml.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// ParseDuration parses a duration of at least 0, such as 1d, 1h30m, 1.5h or 500ms. Each number has
// a unit: d, h, m, s, ms, us or ns; only 0 may stand alone.
func ParseDuration(text string) (time.Duration, error) {
	invalid := fmt.Errorf("%q is not a duration", text)
	rest := strings.TrimPrefix(text, "+")
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return 0, invalid
	}
	inNumber := func(r rune) bool { return r >= '0' && r <= '9' || r == '.' }
	total := 0.0
	for rest != "" {
		afterNumber := strings.TrimLeftFunc(rest, inNumber)
		value, err := strconv.ParseFloat(strings.TrimSuffix(rest, afterNumber), 64)
		if err != nil {
			return 0, invalid
		}
		afterUnit := strings.TrimLeftFunc(afterNumber, func(r rune) bool { return !inNumber(r) })
		unit, known := unitOfTime(strings.TrimSuffix(afterNumber, afterUnit))
		if !known {
			return 0, invalid
		}
		total += value * float64(unit)
		rest = afterUnit
	}
	d := time.Duration(math.Round(min(total, math.MaxInt64)))
	if total >= math.MaxInt64 || d == 0 && total > 0 { // 0 often means no limit
		return 0, invalid
	}
	return d, nil
}

func unitOfTime(name string) (unit time.Duration, known bool) {
	switch name {
	case "d":
		return 24 * time.Hour, true
	case "h":
		return time.Hour, true
	case "m":
		return time.Minute, true
	case "s":
		return time.Second, true
	case "ms":
		return time.Millisecond, true
	case "us", "µs", "μs": // the micro sign and the letter mu
		return time.Microsecond, true
	case "ns":
		return time.Nanosecond, true
	}
	return 0, false
}

// ParseSize parses a number of bytes, such as 1GiB, 500MB, 1.5 GiB, 10G or 4096. A prefix without i
// is a power of 1000, with i of 1024; case does not matter.
func ParseSize(text string) (int64, error) {
	if n, err := strconv.ParseUint(text, 10, 63); err == nil {
		return int64(n), nil
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size", text)
	}
	return int64(n), nil
}

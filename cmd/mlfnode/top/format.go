package top

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/node/api"
)

func count(n int64) string { return humanize.Comma(n) }

// plural formats a count with its noun.
func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	if strings.HasSuffix(word, "s") {
		return count(n) + " " + word + "es"
	}
	return count(n) + " " + word + "s"
}

func bytesText(n int64) string {
	if n < 0 {
		return "–"
	}
	return humanize.IBytes(uint64(n))
}

// percent formats a share in per cent.
func percent(done, all int64) string {
	if all == 0 {
		return "–"
	}
	p := 100 * float64(done) / float64(all)
	if done < all {
		p = min(p, 99.9)
	}
	if p >= 10 || p == 0 {
		return fmt.Sprintf("%.0f %%", math.Floor(p))
	}
	return fmt.Sprintf("%.1f %%", p)
}

// rate formats trials per second.
func rate(v float64) string {
	switch {
	case v <= 0:
		return ""
	case v < 0.01:
		return fmt.Sprintf("%.2g/h", v*3600)
	case v >= 99.5: // two digits would round it to 1e+02
		return count(int64(math.Round(v))) + "/s"
	}
	return fmt.Sprintf("%.2g/s", v)
}

// clock formats a time of day, with the date if it is another day.
func clock(t, now time.Time) string {
	t, now = t.In(now.Location()), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

func clockOf(t *time.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	return clock(*t, now)
}

// value formats a value of a parameter or a metric: text as it is, and a number that is not whole
// with five digits, unless whole is set.
func value(v any, whole bool) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return clean(v)
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		f, err := v.Float64()
		if _, isInt := v.Int64(); whole || isInt == nil || err != nil {
			return v.String()
		}
		return number(f)
	case float64:
		return number(v)
	}
	return clean(fmt.Sprint(v))
}

// metric formats a value that a program reported.
func metric(raw json.RawMessage) string {
	if text := string(raw); json.Valid(raw) && text != "" && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') {
		return value(json.Number(text), false)
	}
	return clean(string(raw))
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 5, 64) }

// withState returns a sweep with its newer state from the event stream.
func withState(s api.Sweep, state *api.SweepState) api.Sweep {
	if state != nil {
		s.SweepCounts, s.ETA = state.SweepCounts, state.ETA
	}
	return s
}

func done(s *api.SweepCounts) int64 { return s.Succeeded + s.Failed + s.Cancelled }

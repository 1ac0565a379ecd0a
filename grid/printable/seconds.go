package printable

import "time"

// Seconds formats a length of time for people: rounded to the millisecond below a second, to a
// tenth of a second below a minute, and to the second above.
func Seconds(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

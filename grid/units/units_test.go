package units

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute,
		"1h30m": 90 * time.Minute,
		"90s":   90 * time.Second, "500ms": 500 * time.Millisecond, "+2h": 2 * time.Hour, ".5s": 500 * time.Millisecond,
		"3us": 3 * time.Microsecond, "3µs": 3 * time.Microsecond, "3μs": 3 * time.Microsecond, "7ns": 7,
		"30m1d": 24*time.Hour + 30*time.Minute,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "+", "-1h", "90", "1", "soon", "1w", "h", "1h-30m", "1 h", "1..5h",
		"999999999d", "1h90", "0.4ns"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %v, want it refused", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "9007199254740993": 9007199254740993, "1GiB": 1 << 30, "500MB": 500e6,
		"1.5 GiB": 3 << 29, "10G": 10e9,
		"1.5 gb": 1.5e9, "1kB": 1000, "2 KiB": 2048, "7B": 7,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1GiB", "much", "1 gigabyte", "99999999999PiB", "9EiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %v, want it refused", text, got)
		}
	}
}

package executor

import (
	"testing"
	"time"
)

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2 * time.Hour: "2h", 90 * time.Minute: "1h30m", 2 * time.Second: "2s", 100 * time.Millisecond: "100ms",
		time.Hour + time.Second: "1h0m1s", 10 * time.Minute: "10m",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v): got %q, want %q", d, got, want)
		}
	}
}

package monitor

import "testing"

func TestAttemptNumber(t *testing.T) {
	for text, want := range map[string]int{"": 0, "0": 0, "1": 1, "17": 17, "abc": -1, "-1": -1, "1e3": -1, "1.5": -1, " 1": -1, "99999999999999999999": -1} {
		got, err := attemptNumber(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
}

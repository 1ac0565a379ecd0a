package main

import (
	"slices"
	"testing"

	"mlfnode/node/api"
)

// TestCause: the cause of a failure comes first, followed by the last line that is not a progress
// bar.
func TestCause(t *testing.T) {
	const bar = "\r 10%|#  | 1/10\r 50%|#####     | 50/100 [00:01<00:09]"
	for reason, want := range map[string]string{
		"":                    "",
		"exit code 4":         "exit code 4",
		"exit code 4\n" + bar: "exit code 4",
		"ran longer than its limit of 2s\nEpoch 3: 50%|##  | 1/2\n" + bar:          "ran longer than its limit of 2s",
		"exit code 1\nTraceback (most recent call last):\n\nValueError: x\n" + bar: "exit code 1 · ValueError: x",
		"exit code 1\n" + bar + "\nValueError: \x1b[31mx\x1b[0m\n":                 "exit code 1 · ValueError: x",
		"killed by SIGKILL\r\nlast words\r\n":                                      "killed by SIGKILL · last words",
		"exit code 1\n90% of the files are gone":                                   "exit code 1",
		"exit code 1\nloss is 90%":                                                 "exit code 1 · loss is 90%",
	} {
		if got := shortReason(reason); got != want {
			t.Errorf("%q: got %q, want %q", reason, got, want)
		}
	}
}

// TestColumnNames: whatever parameters and metrics are called, no column comes twice and every name
// is kept in its column.
func TestColumnNames(t *testing.T) {
	fixed := []string{"trial", "state", "node"}
	for _, c := range []struct{ keys, metrics, want []string }{
		{[]string{"lr"}, []string{"loss"}, []string{"lr", "loss"}},
		{[]string{"trial", "lr"}, []string{"lr", "state"},
			[]string{"parameter:trial", "lr", "metric:lr", "metric:state"}},
		{[]string{"trial", "parameter:trial"}, []string{"parameter:trial"},
			[]string{"parameter:parameter:trial", "parameter:trial", "metric:parameter:trial"}},
		{[]string{"a"}, []string{"a", "metric:a", "metric:metric:a"},
			[]string{"a", "metric:metric:metric:a", "metric:a", "metric:metric:a"}},
	} {
		keys, metrics := columnNames(&api.Sweep{Keys: c.keys, Metrics: c.metrics}, fixed)
		if got := slices.Concat(keys, metrics); !slices.Equal(got, c.want) {
			t.Errorf("%v, %v: got %v, want %v", c.keys, c.metrics, got, c.want)
		}
	}
}

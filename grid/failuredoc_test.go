package grid

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestFailureTableIsDocumented checks that the table in the manual matches the one in the program.
func TestFailureTableIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "| Class | What happened | Cause lies with | Retries | First wait | The next attempt avoids | Counts with |\n|---|---|---|---|---|---|---|\n"
	for _, f := range Failures() {
		want += documented(&f)
	}
	if !strings.Contains(string(text), want) {
		t.Errorf("docs/failures.md does not have this table:\n%s", want)
	}
	for _, f := range Failures() {
		if line := fmt.Sprintf("| `%s` | %s |\n", f.Class, f.Hint); f.Hint != "" &&
			!strings.Contains(string(text), line) {
			t.Errorf("docs/failures.md lacks the advice %s", line)
		}
	}
}

// TestSettableClassesAreDocumented checks that the manual names the classes that `retries` cannot
// name.
func TestSettableClassesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	var others []string
	for _, c := range classesWith(func(f *Failure) bool { return !f.Settable }) {
		others = append(others, fmt.Sprintf("`%s`", c))
	}
	last := len(others) - 1
	want := fmt.Sprintf("`retries` may name all classes but %s and %s.\n",
		strings.Join(others[:last], ", "), others[last])
	if !strings.Contains(string(text), want) {
		t.Errorf("docs/failures.md lacks: %s", want)
	}
	var first, final Class
	for _, f := range Failures() {
		if f.Limited && f.Class != ClassCUDAShared {
			if first == ClassNone {
				first = f.Class
			}
			final = f.Class
		}
	}
	want = fmt.Sprintf(
		"A trial gets at most %d retries in all after `%s` and the classes from `%s` to `%s` in this table.\n",
		infrastructureRetries, ClassCUDAShared, first, final)
	if !strings.Contains(string(text), want) {
		t.Errorf("docs/failures.md lacks: %s", want)
	}
}

// documented returns the manual's line for a class.
func documented(f *Failure) string {
	retries, wait, avoid, parent := fmt.Sprint(f.Retries), "none", string(f.Avoid), string(f.Parent)
	switch {
	case f.Always:
		retries = "always"
	case f.Elsewhere > 0:
		retries = fmt.Sprintf("%d in a cluster", f.Elsewhere)
	case f.Class == ClassCancel || f.Class == ClassStopped:
		retries = "never"
	case f.Class == ClassPreempt:
		retries = "`checkpoint.repeats`"
	case f.Class == ClassCrash:
		retries = "`crash_limit` in node.yaml"
	}
	if f.Backoff > 0 {
		wait = f.Backoff.String()
	}
	if avoid == "" {
		avoid = "-"
	}
	if parent = "`" + parent + "`"; f.Parent == "" {
		parent = "-"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s | %s |\n", f.Class, f.Cause, f.Owner, retries,
		wait, avoid, parent)
}

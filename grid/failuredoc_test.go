package grid

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestFailureTableIsDocumented holds that the table in the manual is this program's.
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
		if line := fmt.Sprintf("| `%s` | %s |\n", f.Class, f.Hint); f.Hint != "" && !strings.Contains(string(text), line) {
			t.Errorf("docs/failures.md lacks the advice %s", line)
		}
	}
}

// documented is the line of a class in the manual.
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
		retries = "see clusters.md"
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
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s | %s |\n", f.Class, f.Cause, f.Owner, retries, wait, avoid, parent)
}

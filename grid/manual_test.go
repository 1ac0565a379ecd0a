package grid

import (
	"os"
	"strings"
	"testing"
)

// TestFailureClassesAreInTheManual checks that docs/failures.md mentions every class.
func TestFailureClassesAreInTheManual(t *testing.T) {
	page, err := os.ReadFile("../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range classesWith(func(*Failure) bool { return true }) {
		if c != ClassNone && !strings.Contains(string(page), "`"+string(c)+"`") {
			t.Errorf("docs/failures.md does not explain %s", c)
		}
	}
}

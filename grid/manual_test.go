package grid

import (
	"os"
	"strings"
	"testing"
)

// TestFailureClassesAreInTheManual looks for each class in docs/failures.md.
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

package grid

import (
	"strings"
	"testing"
)

// TestSweepNames checks that names are rejected if commands would mistake them for another sweep, a
// trial, a flag or an empty argument.
func TestSweepNames(t *testing.T) {
	for _, name := range []string{"", "overnight", "lr search", "exp-2", "train-2-x", "train-", "train", "training-2",
		"Last", "5", "ü", "a:b", "*"} {
		if err := CheckSweepName("train", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"last", "a/b", "train-2/0", "/", "-x", "--all", " ", " a", "a ", "a\tb", "train-1",
		"train-099", "\xff", strings.Repeat("n", 201)} {
		if err := CheckSweepName("train", name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

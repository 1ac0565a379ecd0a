package problem

import (
	"fmt"
	"testing"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"index", "loss", "Loss", "validation/loss", "lr", "boss", "los"}
	for name, want := range map[string]string{
		"los": "[los loss Loss]", "INDEX": "[index]", "validation/los": "[validation/loss]",
		"nothing": "[]", "": "[]", "l": "[lr]",
	} {
		if got := fmt.Sprint(Nearest(name, known)); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

func TestWriteOneOf(t *testing.T) {
	t.Parallel()
	for want, choices := range map[string][]string{
		"Write a or b.":    {"a", "b"},
		"Write a, b or c.": {"a", "b", "c"},
	} {
		if got := WriteOneOf(choices); got != want {
			t.Errorf("%q: got %q, want %q", choices, got, want)
		}
	}
}

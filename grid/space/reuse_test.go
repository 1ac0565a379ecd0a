package space

import (
	"encoding/json"
	"fmt"
	"testing"
)

// readAgain decodes a space from its record.
func readAgain(t *testing.T, s Space) Space {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again Space
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	return again
}

// TestReuse decodes a space repeatedly, as with each revision of its record, and checks that the
// result of its expressions is reused. A space that differs in anything computes its own.
func TestReuse(t *testing.T) {
	space := func(end string, exclude ...string) Space {
		s, err := New([]Axis{{Key: "a", Interval: []json.Number{"0", json.Number(end)}},
			{Key: "b", Interval: []json.Number{"0", "10"}}}, exclude)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	known := space("10", "a > 4 and b > 4")
	for name, c := range map[string]struct {
		other Space
		same  bool
	}{
		"the same":                       {known, true},
		"another expression, same count": {space("10", "a > 4 and b < 5"), false},
		"another axis":                   {space("11", "a > 4 and b > 4"), false},
		"no expressions":                 {space("10"), false},
		"nothing":                        {Space{}, false},
	} {
		again := readAgain(t, c.other)
		again = Reuse(again, known)
		if same := len(again.products) > 0 && again.products[0] == known.products[0]; same != c.same {
			t.Errorf("%s: shared %v, want %v", name, same, c.same)
		}
		if a, b := again.Count(), c.other.Count(); a != b {
			t.Errorf("%s: got %d points, want %d", name, a, b)
		}
		if len(again.products) == 0 {
			continue
		}
		for i := range again.Count() {
			p, err := again.At(i)
			q, err2 := c.other.At(i)
			if err != nil || err2 != nil || fmt.Sprint(p) != fmt.Sprint(q) {
				t.Fatalf("%s: point %d: got %v, %v; want %v, %v", name, i, p, err, q, err2)
			}
		}
		again = Reuse(again, again) // with itself
	}
}

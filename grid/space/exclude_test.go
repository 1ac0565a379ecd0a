package space

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// rule is an expression over small whole numbers and an equivalent Go function.
type rule struct {
	source string
	holds  func(a, b, c int) bool
}

func conditions() []rule {
	return []rule{
		{"a == 2 and b > 1", func(a, b, _ int) bool { return a == 2 && b > 1 }},
		{"c-x in [0, 3] || not (b < 2)", func(_, b, c int) bool { return c == 0 || c == 3 || b >= 2 }},
		{"(a + b) % 2 == 1", func(a, b, _ int) bool { return (a+b)%2 == 1 }},
		{"a > c_x", func(a, _, c int) bool { return a > c }},
		{"max(a, b) == 3 and string(b) != '0'", func(a, b, _ int) bool { return max(a, b) == 3 && b != 0 }},
		{"a / 2 == 0.5", func(a, _, _ int) bool { return a == 1 }},
		{"false", func(_, _, _ int) bool { return false }},
	}
}

// TestExcludeEqualsBruteForce compares Count, At and Index with an explicit loop over the points,
// before and after extending.
func TestExcludeEqualsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var axes []Axis
		for _, key := range []string{"a", "b", "c-x", "flag"}[:rapid.IntRange(3, 4).Draw(t, "axes")] {
			end := json.Number(strconv.Itoa(rapid.IntRange(1, 5).Draw(t, "end")))
			axes = append(axes, Axis{Key: key, Interval: []json.Number{"0", end}})
		}
		chosen := rapid.SliceOfN(rapid.SampledFrom(conditions()[2:]), 0, 2).Draw(t, "conditions")
		chosen = append(chosen, conditions()[0])
		var exclude []string
		for _, c := range chosen {
			exclude = append(exclude, c.source)
		}
		want := allowed(points(axes), chosen)
		s, err := New(axes, exclude)
		if err != nil {
			if len(want) > 0 {
				t.Fatalf("NewSpace: %v with %d points left", err, len(want))
			}
			return
		}
		checkPoints(t, s, want)
		checkPoints(t, reread(t, s), want)
		extra := []Axis{{Key: "a", Interval: []json.Number{"2", "7"}},
			{Key: "c-x", Interval: []json.Number{"0", "6", "2"}}}
		longer, _ := lengthen(axes, extra)
		next, err := reread(t, s).Extend(extra)
		more := append(want, newPoints(want, longer)...)
		if more = allowed(more, chosen); len(more) == len(want) {
			if err == nil {
				t.Fatalf("extend: got no error, want one as nothing is new")
			}
			return
		}
		if err != nil {
			t.Fatalf("extend: %v", err)
		}
		checkSame(t, reread(t, next), more)
	})
}

func allowed(all []Params, conditions []rule) []Params {
	var out []Params
points:
	for _, p := range all {
		n := make([]int, 3)
		for k := range n {
			n[k], _ = strconv.Atoi(p[k].Value.Text)
		}
		for _, c := range conditions {
			if c.holds(n[0], n[1], n[2]) {
				continue points
			}
		}
		out = append(out, p)
	}
	return out
}

func TestExcludeKinds(t *testing.T) {
	axes := []Axis{
		{Key: "opt", Values: []Value{{"sgd", Text}, {"adam", Text}}},
		{Key: "fast", Values: []Value{{"true", True}, {"false", False}}},
		{Key: "lr", Values: []Value{{"1e-3", Number}, {"10", Number}}},
	}
	for _, c := range []struct {
		source string
		want   int64
	}{
		{`opt == "sgd"`, 4}, {`fast`, 4}, {`not fast and lr < 1`, 6}, {`lr == 0.001`, 4},
		{`opt startsWith 'a' and lr >= 10`, 6},
		{`opt in ["sgd", "rms"] and fast == false`, 6}, {`opt matches "^a"`, 4},
	} {
		if got := mustSpace(t, axes, c.source).Count(); got != c.want {
			t.Errorf("%s: got %d points, want %d", c.source, got, c.want)
		}
	}
}

func TestBadExclude(t *testing.T) {
	number := func(key string, end json.Number) Axis { return Axis{Key: key, Interval: []json.Number{"0", end}} }
	axes := []Axis{number("unit", "10"), {Key: "opt", Values: []Value{{"sgd", Text}}}, number("big", "1e9")}
	for _, c := range []struct{ source, want string }{
		{"units > 3", `exclude "units > 3" names units, which is not an axis. The axes are unit, opt, big.`},
		{"$env > 3", `exclude "$env > 3" names $env, which is not an axis. The axes are unit, opt, big.`},
		{"$env.unit > 3",
			`exclude "$env.unit > 3" does not work: parts of values can't be taken at column 5. Write a condition`},
		{"now() > 3", `exclude "now() > 3" does not work: unknown name now at column 1. Write a condition`},
		{"all(1..9, # > unit)",
			`exclude "all(1..9, # > unit)" does not work: it loops over values at column 11. Write a condition`},
		{"unit = 3", `exclude "unit = 3" does not work: `},
		{"unit > 'x'", `exclude "unit > 'x'" does not work: invalid operation: > (mismatched types int and string) at column 6. Write a condition`},
		{"opt == 3", `exclude "opt == 3" does not work: invalid operation: == (mismatched types string and int) at column 5. Write a condition`},
		{"unit + 1", `exclude "unit + 1" does not work: `},
		{"", `exclude "" does not work: `},
		{"true", "the exclude expressions leave no point of the space. Loosen them."},
		{"unit < 10", "the exclude expressions leave no point of the space. Loosen them."},
		{"big == 3", "the exclude expressions would have to be evaluated on more than 10000000 combinations, those of all axes down to big. Move the axes"},
		{strings.Repeat("unit > 3 or ", 400) + "false", `exclude "unit > 3 or`},
		{"len(1..100000000) > unit", `exclude "len(1..100000000) > unit" does not work: `},
	} {
		_, err := New(axes, []string{c.source})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.60s: got %v, want %s…", c.source, err, c.want)
		}
	}
}

func TestBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 3000).Draw(t, "n")
		b := newBitmap(n)
		var members []int64
		for i := int64(0); i < n; i += rapid.Int64Range(1, 700).Draw(t, "gap") {
			b.set(i)
			members = append(members, i)
		}
		if got := b.buildRanks(); got != int64(len(members)) {
			t.Fatalf("members: got %d, want %d", got, len(members))
		}
		for k, m := range members {
			if p, r := b.nth(int64(k)), b.rank(m); p != m || r != int64(k) || !b.has(m) {
				t.Fatalf("member %d is %d: pick %d, rank %d", k, m, p, r)
			}
		}
	})
}

package space

import (
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/condition"
	"mlfnode/grid/problem"
)

// The limits bound the cost of a point: expressions have no loops, few functions, and little
// memory.
const (
	maxExcludes     = 100
	maxExcludeNodes = 300
)

// excludeRules holds the compiled exclude expressions of a space.
type excludeRules struct {
	sources    []string
	conditions []*condition.Condition
	names      []string // name of each axis in expressions
	last       int      // the last axis that an expression mentions, or -1
}

// compileExclude type-checks the expressions against the axes.
func compileExclude(exclude []string, dims []*dimension) (*excludeRules, error) {
	if len(exclude) > maxExcludes {
		return nil, problem.Errorf("Join some with 'or'.", "there are %d exclude expressions; at most %d are allowed",
			len(exclude), maxExcludes)
	}
	r := &excludeRules{sources: exclude, names: axisNames(dims), last: -1}
	axes := make([]condition.Variable, len(dims))
	for k, d := range dims {
		axes[k] = condition.Variable{Name: r.names[k], Kind: kindOf(d)}
	}
	for _, source := range exclude {
		if len(source) > 10_000 {
			return nil, problem.Errorf("Split it into several.", "exclude %.40q… is longer than 10,000 characters",
				source)
		}
		c, err := condition.Parse(source, maxExcludeNodes)
		if err != nil {
			return nil, badExpression(source, err)
		}
		if err := r.addMentioned(source, c.Names()); err != nil {
			return nil, err
		}
		if err := c.Bind(axes); err != nil {
			return nil, badExpression(source, err)
		}
		r.conditions = append(r.conditions, c)
	}
	return r, nil
}

// addMentioned checks the names in an expression and sets last to the last axis among them.
func (r *excludeRules) addMentioned(source string, used []string) error {
	for _, name := range used {
		k := slices.Index(r.names, name)
		if k < 0 {
			hint := "The space has no axes."
			if len(r.names) > 0 {
				hint = "The axes are " + strings.Join(r.names, ", ") + "."
			}
			return problem.Errorf(hint, "exclude %q names %s, which is not an axis", source, name)
		}
		r.last = max(r.last, k)
	}
	return nil
}

func badExpression(source string, err error) error {
	return problem.Errorf(`Write a condition on the axes, like batchsize == 500 and unit > 100; put text values in quotes.`,
		"exclude %q does not work: %s", source, err)
}

// axisNames returns the names of the axes in expressions: characters other than letters and digits
// become underscores, unless the result is the name of another axis.
func axisNames(dims []*dimension) []string {
	out := make([]string, len(dims))
	taken := map[string]bool{}
	for _, d := range dims {
		taken[d.key] = true
	}
	for k, d := range dims {
		out[k] = identifier(d.key)
		if out[k] != d.key && taken[out[k]] {
			out[k] = d.key
		}
		taken[out[k]] = true
	}
	return out
}

func identifier(key string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && r != '_' && !isDigit(byte(r)) && (r|0x20 < 'a' || r|0x20 > 'z') {
			return '_'
		}
		return r
	}, key)
}

// kindOf returns the common kind of all values of an axis.
func kindOf(d *dimension) condition.Kind {
	kind := condition.Nil // no value yet
	for _, p := range d.pieces {
		switch p := p.(type) {
		case *list:
			for _, v := range p.values {
				kind = widen(kind, operand(v).Kind())
			}
		case *interval:
			if p.scale == 0 && p.small {
				kind = widen(kind, condition.Int)
			} else {
				kind = widen(kind, condition.Float)
			}
		default:
			kind = widen(kind, condition.Float)
		}
	}
	return kind
}

func widen(kind, k condition.Kind) condition.Kind {
	number := func(k condition.Kind) bool { return k == condition.Int || k == condition.Float }
	switch {
	case kind == condition.Nil || kind == k:
		return k
	case number(kind) && number(k):
		return condition.Float
	}
	return condition.Any
}

// operand returns a value as expressions see it. The result depends only on the value, so a point
// is always either excluded or not.
func operand(v Value) condition.Value {
	switch v.Kind {
	case Number:
		if n, err := strconv.Atoi(v.Text); err == nil {
			return condition.OfInt(n)
		}
		f, _ := strconv.ParseFloat(v.Text, 64) // out of range is infinite, which compares correctly
		return condition.OfFloat(f)
	case True, False:
		return condition.OfBool(v.Kind == True)
	}
	return condition.OfText(v.Text)
}

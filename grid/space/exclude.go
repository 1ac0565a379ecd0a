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
func compileExclude(exclude []string, axes []*Values) (*excludeRules, error) {
	if len(exclude) > maxExcludes {
		return nil, problem.Errorf("Join some with 'or'.", "there are %d exclude expressions; at most %d are allowed",
			len(exclude), maxExcludes)
	}
	r := &excludeRules{sources: exclude, names: axisNames(axes), last: -1}
	variables := make([]condition.Variable, len(axes))
	for k, d := range axes {
		variables[k] = condition.Variable{Name: r.names[k], Kind: kindOf(d)}
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
		for _, name := range c.Names() {
			k := slices.Index(r.names, name)
			if k < 0 {
				hint := "The space has no axes."
				if len(r.names) > 0 {
					hint = "The axes are " + strings.Join(r.names, ", ") + "."
				}
				return nil, problem.Errorf(hint, "exclude %q names %s, which is not an axis", source, name)
			}
			r.last = max(r.last, k)
		}
		if err := c.Bind(variables); err != nil {
			return nil, badExpression(source, err)
		}
		r.conditions = append(r.conditions, c)
	}
	return r, nil
}

func badExpression(source string, err error) error {
	return problem.Errorf(
		"Write a condition on the axes, like batchsize == 500 and unit > 100; put text values in quotes.",
		"exclude %q does not work: %s", source, err)
}

// axisNames returns the names of the axes in expressions: characters other than letters and digits
// become underscores, unless the result is the name of another axis.
func axisNames(axes []*Values) []string {
	out := make([]string, len(axes))
	taken := map[string]bool{}
	for _, d := range axes {
		taken[d.key] = true
	}
	for k, d := range axes {
		out[k] = strings.Map(func(r rune) rune {
			if r < 0x80 && r != '_' && !isDigit(byte(r)) && (r|0x20 < 'a' || r|0x20 > 'z') {
				return '_'
			}
			return r
		}, d.key)
		if out[k] != d.key && taken[out[k]] {
			out[k] = d.key
		}
		taken[out[k]] = true
	}
	return out
}

// kindOf returns the common kind of all values of an axis.
func kindOf(d *Values) condition.Kind {
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

package condition

import (
	"fmt"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
	"pgregory.net/rapid"
)

// variables returns the variables of the test conditions: n and m are whole numbers, x and y
// numbers, s and t texts, b is a boolean, and u has any kind.
func variables() []Variable {
	return []Variable{{"n", Int}, {"m", Int}, {"x", Float}, {"y", Float}, {"s", Text}, {"t", Text},
		{"b", Bool}, {"u", Any}}
}

// reference compiles and runs a condition with the library that defines the language.
func reference(source string, values []any) (out any, compiled, run error) {
	env := types.Map{"n": types.Int, "m": types.Int, "x": types.Float64, "y": types.Float64,
		"s": types.String, "t": types.String, "b": types.Bool, "u": types.Any}
	options := []expr.Option{expr.Env(env), expr.AsBool(), expr.DisableAllBuiltins(), expr.Optimize(false)}
	for _, f := range []string{"abs", "ceil", "floor", "round", "int", "float", "string", "len", "lower", "upper",
		"trim", "min", "max"} {
		options = append(options, expr.EnableBuiltin(f))
	}
	program, err := expr.Compile(source, options...)
	if err != nil {
		return nil, err, nil
	}
	point := map[string]any{}
	for i, v := range variables() {
		point[v.Name] = values[i]
	}
	machine := vm.VM{MemoryBudget: 10_000}
	out, err = machine.Run(program, point)
	return out, nil, err
}

func valueOf(v any) Value {
	switch v := v.(type) {
	case int:
		return OfInt(v)
	case float64:
		return OfFloat(v)
	case bool:
		return OfBool(v)
	}
	return OfText(v.(string))
}

func compile(source string) (*Condition, error) {
	c, err := Parse(source, 1000)
	if err != nil {
		return nil, err
	}
	return c, c.Bind(variables())
}

// looks reports whether kinds are checked when the condition is evaluated.
func (c *Condition) looks() bool {
	any := false
	c.root.walk(func(n *node) { any = any || n.kind == Any || n.kind == List && n.elem == Any })
	return any
}

// stricter reports whether the library accepts what is rejected here.
func stricter(err error) bool {
	// the library cannot evaluate these
	return err != nil && (strings.Contains(err.Error(), "in (mismatched types unknown and string)") ||
		// min and max of a single value that is not a number
		strings.HasPrefix(err.Error(), "invalid argument for m") ||
		strings.Contains(err.Error(), "nil")) // some operators treat nil as a text
}

// source draws an expression that is often valid.
func source(t *rapid.T, depth int) string {
	if depth == 0 {
		return rapid.SampledFrom([]string{
			"n", "m", "x", "y", "s", "t", "b", "u", "0", "1", "2", "7", "0x1F", "1_000", "0.5", "1e3", ".25", "-3",
			"''", "'ab'", `"a\tb"`, "`a`",
			"true", "false", "[1, 2]", "[1, 'a']", "['a', 'ab']", "[]", "[0.5]", "1..3", "nil",
		}).Draw(t, "leaf")
	}
	sub := func() string { return source(t, rapid.IntRange(0, depth-1).Draw(t, "depth")) }
	switch rapid.IntRange(0, 12).Draw(t, "form") {
	case 0:
		return "(" + sub() + ")"
	case 1:
		return rapid.SampledFrom([]string{"not ", "!", "-", "+", "not not "}).Draw(t, "sign") + sub()
	case 2:
		return sub() + " ? " + sub() + " : " + sub()
	case 3:
		f := rapid.SampledFrom([]string{"abs", "ceil", "floor", "round", "int", "float", "string", "len", "lower",
			"upper", "trim", "min", "max"})
		return f.Draw(t, "function") + "(" + sub() + ")"
	case 4:
		return rapid.SampledFrom([]string{"min", "max", "trim"}).Draw(t, "function") + "(" + sub() + ", " + sub() + ")"
	case 5:
		return sub() + " " + rapid.SampledFrom([]string{"<", "<=", ">", ">="}).Draw(t, "first") + " " +
			sub() + " < " + sub()
	default:
		op := rapid.SampledFrom([]string{
			"or", "||", "and", "&&", "==", "!=", "<", ">", ">=", "<=", "in", "not in",
			"matches", "contains", "not contains", "startsWith",
			"endsWith", "+", "-", "*", "/", "%", "**", "^", "??", "..", "and", "or", "==", "<",
		})
		return sub() + " " + op.Draw(t, "operator") + " " + sub()
	}
}

// TestAgreesWithExpr compares conditions with the library: whether they are rejected, and their
// results.
func TestAgreesWithExpr(t *testing.T) {
	compiled, ran := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		src := source(t, rapid.IntRange(0, 5).Draw(t, "depth"))
		values := []any{
			rapid.IntRange(-3, 8).Draw(t, "n"), rapid.IntRange(-3, 8).Draw(t, "m"),
			rapid.SampledFrom([]float64{-1.5, 0, 0.5, 1, 2, 1e30}).Draw(t, "x"),
			rapid.SampledFrom([]float64{0, 0.25, 3}).Draw(t, "y"),
			rapid.SampledFrom([]string{"", "a", "ab", "AB ", "7", "0.5"}).Draw(t, "s"),
			rapid.SampledFrom([]string{"a", "b", "^a"}).Draw(t, "t"),
			rapid.Bool().Draw(t, "b"), rapid.SampledFrom([]any{1, 0.5, "a", true}).Draw(t, "u"),
		}
		want, refused, failed := reference(src, values)
		if failed != nil && strings.Contains(failed.Error(), "interface conversion") {
			return // the library infers a wrong kind and relies on it, as in n == min(n, x)
		}
		c, err := compile(src)
		if err == nil && refused != nil && c.looks() {
			return // the library checks a kind that is known only from the values
		}
		if stricter(err) {
			return
		}
		if (err != nil) != (refused != nil) {
			t.Fatalf("%s: got error %v, want %v", src, err, refused)
		}
		if err != nil {
			return
		}
		compiled++
		point := make([]Value, len(values))
		for i, v := range values {
			point[i] = valueOf(v)
		}
		got, err := c.Holds(point)
		if stricter(err) {
			return
		}
		if (err != nil) != (failed != nil) {
			t.Fatalf("%s with %v: got error %v, want %v", src, values, err, failed)
		}
		if err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s with %v: got %v, want %v", src, values, got, want)
		}
		if err == nil {
			ran++
		}
	})
	t.Logf("%d conditions compiled, %d gave a value", compiled, ran)
}

package grid

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// The limits bound what a point can cost: expressions have no loops, only the listed functions, and little memory.
const (
	maxExcludes     = 100
	maxExcludeNodes = 300
	excludeMemory   = 10_000
)

func excludeFunctions() []string {
	return []string{"abs", "ceil", "floor", "round", "int", "float", "string", "len", "lower", "upper", "trim", "min", "max"}
}

// rules are the compiled exclude expressions of a space.
type rules struct {
	sources  []string
	programs []*vm.Program
	names    []string // the name of each axis in expressions
	last     int      // the last axis that an expression mentions; -1 when none does
}

// compile type-checks the expressions against the axes.
func compile(exclude []string, dims []*dimension) (*rules, error) {
	if len(exclude) > maxExcludes {
		return nil, flawf("Join some with 'or'.", "there are %d exclude expressions, and %d is the most", len(exclude), maxExcludes)
	}
	r := &rules{sources: exclude, names: names(dims), last: -1}
	env := types.Map{}
	for k, d := range dims {
		env[r.names[k]] = kindOf(d)
	}
	options := []expr.Option{expr.Env(env), expr.AsBool(), expr.MaxNodes(maxExcludeNodes), expr.DisableAllBuiltins()}
	for _, f := range excludeFunctions() {
		options = append(options, expr.EnableBuiltin(f))
	}
	for _, source := range exclude {
		if err := r.mention(source, options); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rules) mention(source string, options []expr.Option) error {
	if len(source) > 10_000 {
		return flawf("Split it into several.", "exclude %.40q… is longer than 10,000 characters", source)
	}
	if tree, err := parser.Parse(source); err == nil {
		uses := idents{}
		ast.Walk(&tree.Node, uses)
		if uses[loop] {
			return badExpression(source, errors.New("it loops over values"))
		}
		if err := r.axes(source, uses); err != nil {
			return err
		}
	}
	program, err := expr.Compile(source, options...)
	if err != nil {
		return badExpression(source, err)
	}
	r.programs = append(r.programs, program)
	return nil
}

// axes checks the names in an expression and moves last to the last axis of them.
func (r *rules) axes(source string, uses idents) error {
	for name := range uses {
		found := false
		for k, n := range r.names {
			if n == name {
				found, r.last = true, max(r.last, k)
			}
		}
		if !found {
			hint := "There are no axes to exclude points of."
			if len(r.names) > 0 {
				hint = "The axes are " + strings.Join(r.names, ", ") + "."
			}
			return flawf(hint, "exclude %q names %s, which is no axis", source, name)
		}
	}
	return nil
}

// idents collects the variables of an expression, and loop if it has one.
type idents map[string]bool

const loop = "#"

// Visit implements ast.Visitor.
func (m idents) Visit(n *ast.Node) {
	switch n := (*n).(type) {
	case *ast.IdentifierNode:
		m[n.Value] = true
	case *ast.PredicateNode:
		m[loop] = true
	case *ast.VariableDeclaratorNode:
		delete(m, n.Name)
	}
}

func badExpression(source string, err error) error {
	message := err.Error()
	var e *file.Error
	if errors.As(err, &e) {
		message = fmt.Sprintf("%s at column %d", e.Message, e.Column+1)
	}
	return flawf(`Write a condition on the axes, like batchsize == 500 and unit > 100; text values stand in quotes.`,
		"exclude %q does not work: %s", source, message)
}

// names gives the axes as expressions can write them: what is no letter or digit becomes an underscore, unless that is the
// name of another axis.
func names(dims []*dimension) []string {
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

// kindOf gives the type that all values of an axis have.
func kindOf(d *dimension) types.Type {
	var kind types.Type
	for _, p := range d.pieces {
		switch p := p.(type) {
		case *list:
			for _, v := range p.values {
				kind = widen(kind, types.TypeOf(operand(v)))
			}
		case *interval:
			kind = widen(kind, operandType(p.scale == 0 && p.small))
		default:
			kind = widen(kind, types.Float64)
		}
	}
	return kind
}

func operandType(whole bool) types.Type {
	if whole {
		return types.Int
	}
	return types.Float64
}

func widen(kind, t types.Type) types.Type {
	switch {
	case kind == nil || kind == t:
		return t
	case isNumeric(kind) && isNumeric(t):
		return types.Float64
	}
	return types.Any
}

func isNumeric(t types.Type) bool { return t == types.Int || t == types.Float64 }

// operand gives a value as expressions see it. It depends on the value alone, so a point stays in or out for good.
func operand(v Value) any {
	switch v.Kind {
	case Number:
		if n, err := strconv.Atoi(v.Text); err == nil {
			return n
		}
		f, _ := strconv.ParseFloat(v.Text, 64) // out of range is infinite, which compares well
		return f
	case True, False:
		return v.Kind == True
	}
	return v.Text
}

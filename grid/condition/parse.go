package condition

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"
)

// The operators that are not tokens.
const (
	opLiteral = "literal"
	opName    = "name"
	opCall    = "call"
	opList    = "list"
	opChoose  = "?:"
	opNegate  = "negate" // negation of a number
)

// node is an expression or part of one.
type node struct {
	op     string
	column int
	args   []*node

	text    string // the name, or the function that is called
	literal Value

	kind    Kind           // set by check
	elem    Kind           // kind of a list's elements
	index   int            // index of a name among the variables
	pattern *regexp.Regexp // pattern of a matches operator whose right side is a literal
}

func (n *node) walk(visit func(*node)) {
	visit(n)
	for _, a := range n.args {
		a.walk(visit)
	}
}

// precedence returns how tightly a binary operator binds, or a negative number if op is not one.
func precedence(op string) int {
	switch op {
	case "or", "||":
		return 10
	case "and", "&&":
		return 15
	case "==", "!=", "<", ">", ">=", "<=", "in", "matches", "contains", "startsWith", "endsWith":
		return 20
	case "..":
		return 25
	case "+", "-":
		return 30
	case "*", "/", "%":
		return 60
	case "**", "^":
		return 100
	case "??":
		return 500
	}
	return -1
}

// The precedence of unary operators.
const (
	notPrecedence  = 50
	signPrecedence = 90
)

// parser is a precedence climbing parser. After an error it has no more tokens.
type parser struct {
	tokens []lexer.Token
	nodes  int // number of nodes that are still allowed
	err    *Error
}

func parse(source string, nodes int) (*node, error) {
	tokens, err := lexer.Lex(file.NewSource(source))
	var e *file.Error
	if errors.As(err, &e) {
		return nil, &Error{Message: e.Message, Column: e.From + 1}
	} else if err != nil {
		return nil, &Error{Message: err.Error(), Column: 1}
	}
	p := &parser{tokens: tokens, nodes: nodes}
	n := p.expression(0)
	if !p.at().Is(lexer.EOF) {
		p.unexpected()
	}
	if p.err != nil {
		return nil, p.err
	}
	return n, nil
}

func (p *parser) at() lexer.Token { return p.tokens[0] }

func (p *parser) next() lexer.Token {
	t := p.tokens[0]
	if len(p.tokens) > 1 {
		p.tokens = p.tokens[1:]
	}
	return t
}

// accept consumes the next token if it is one of values.
func (p *parser) accept(kind lexer.Kind, values ...string) bool {
	if !p.at().Is(kind, values...) {
		return false
	}
	p.next()
	return true
}

func (p *parser) expect(kind lexer.Kind, values ...string) {
	if !p.accept(kind, values...) {
		p.unexpected()
	}
}

func (p *parser) unexpected() { p.refuse(p.at()) }

func (p *parser) refuse(t lexer.Token) {
	switch {
	case t.Is(lexer.EOF):
		p.fail(t, "unexpected end of expression")
	case t.Is(lexer.Operator, "="):
		p.fail(t, "unexpected token =, where == compares")
	case t.Is(lexer.Operator, "#"):
		p.fail(t, "it loops over values")
	default:
		p.fail(t, "unexpected token %s", t.Value)
	}
}

func (p *parser) fail(t lexer.Token, format string, args ...any) {
	if p.err == nil {
		p.err = &Error{Message: fmt.Sprintf(format, args...), Column: t.From + 1}
	}
	p.tokens = []lexer.Token{{Kind: lexer.EOF}}
}

// node returns a node at the position of a token.
func (p *parser) node(t lexer.Token, op string, args ...*node) *node {
	if p.nodes--; p.nodes < 0 {
		p.fail(t, "the expression is too long")
	}
	return &node{op: op, column: t.From + 1, args: args}
}

// expression parses an expression whose operators bind at least as tightly as least.
func (p *parser) expression(least int) *node {
	left, last := p.operand(), ""
	for p.at().Is(lexer.Operator) {
		t := p.at()
		negated := t.Value == "not" && len(p.tokens) > 1
		op := t
		if negated {
			op = p.tokens[1]
			if !op.Is(lexer.Operator, "in", "matches", "contains", "startsWith", "endsWith") {
				p.unexpected()
			}
		}
		binds := precedence(op.Value)
		if binds < 0 || binds < least {
			break
		}
		if last == "??" && op.Value != "??" {
			p.fail(op, "?? and %s can't be mixed without parentheses", op.Value)
		}
		if negated {
			p.next()
		}
		p.next()
		switch {
		case op.Is(lexer.Operator, "<", ">", "<=", ">="):
			left = p.comparison(left, op, binds)
		case binds == precedence("**"): // right associative
			left = p.node(op, op.Value, left, p.expression(binds))
		default:
			left = p.node(op, op.Value, left, p.expression(binds+1))
		}
		if negated {
			left = p.node(op, "not", left)
		}
		last = op.Value
	}
	if least == 0 {
		return p.conditional(left)
	}
	return left
}

// comparison parses a < b, and a < b < c in its mathematical sense.
func (p *parser) comparison(left *node, op lexer.Token, binds int) *node {
	var all *node
	for {
		right := p.expression(binds + 1)
		n := p.node(op, op.Value, left, right)
		if all == nil {
			all = n
		} else {
			all = p.node(op, "and", all, n)
		}
		if op = p.at(); !op.Is(lexer.Operator, "<", ">", "<=", ">=") {
			return all
		}
		p.next()
		left = right
	}
}

func (p *parser) conditional(condition *node) *node {
	for p.at().Is(lexer.Operator, "?") {
		t, yes := p.next(), condition
		if !p.at().Is(lexer.Operator, ":") {
			yes = p.expression(0)
		}
		p.expect(lexer.Operator, ":")
		condition = p.node(t, opChoose, condition, yes, p.expression(0))
	}
	return condition
}

// operand parses an operand.
func (p *parser) operand() *node {
	t := p.next()
	var n *node
	switch {
	case t.Is(lexer.Operator, "not", "!"):
		n = p.node(t, "not", p.expression(notPrecedence))
	case t.Is(lexer.Operator, "-"):
		n = p.node(t, opNegate, p.expression(signPrecedence))
	case t.Is(lexer.Operator, "+"):
		n = p.node(t, "+", p.expression(signPrecedence))
	case t.Is(lexer.Bracket, "("):
		n = p.expression(0)
		p.expect(lexer.Bracket, ")")
	case t.Is(lexer.Bracket, "["):
		n = p.node(t, opList, p.list("]")...)
	case t.Is(lexer.Number):
		n = p.node(t, opLiteral)
		n.literal = p.number(t)
	case t.Is(lexer.String):
		n = p.node(t, opLiteral)
		n.literal = OfText(t.Value)
	case t.Is(lexer.Identifier):
		n = p.name(t)
	default:
		p.refuse(t)
	}
	if p.at().Is(lexer.Bracket, "[") || p.at().Is(lexer.Operator, ".", "?.") {
		p.fail(p.at(), "parts of values can't be taken")
	}
	return n
}

// list parses a list up to the closing bracket.
func (p *parser) list(closing string) []*node {
	var all []*node
	for p.err == nil && !p.accept(lexer.Bracket, closing) {
		if len(all) > 0 {
			p.expect(lexer.Operator, ",")
			if p.accept(lexer.Bracket, closing) {
				break
			}
		}
		all = append(all, p.expression(0))
	}
	return all
}

func (p *parser) name(t lexer.Token) *node {
	n := p.node(t, opLiteral)
	switch t.Value {
	case "true", "false":
		n.literal = OfBool(t.Value == "true")
		return n
	case "nil":
		n.literal = Value{kind: Nil}
		return n
	}
	n.op, n.text = opName, t.Value
	if p.accept(lexer.Bracket, "(") {
		n.op, n.args = opCall, p.list(")")
	}
	return n
}

// number parses a literal; whole numbers may be in another base.
func (p *parser) number(t lexer.Token) Value {
	digits := strings.ToLower(strings.ReplaceAll(t.Value, "_", ""))
	if strings.HasPrefix(digits, "0x") || !strings.ContainsAny(digits, ".e") {
		base := 10
		if len(digits) > 1 && strings.Contains("xbo", digits[1:2]) {
			base = 0
		}
		n, err := strconv.ParseInt(digits, base, 0)
		if err != nil {
			p.fail(t, "invalid integer literal: %s", t.Value)
		}
		return OfInt(int(n))
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		p.fail(t, "invalid float literal: %s", t.Value)
	}
	return OfFloat(f)
}

package command

import (
	"fmt"
	"path"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"mlfnode/grid/problem"
)

// script is a parsed shell script with the placeholders in it. How a value must be written depends
// on its position in the script.
type script struct {
	text         string // the script, with each placeholder replaced by its mark, a word of letters
	placeholders []placeholder
	tail         int            // offset in text after the last command, where further options go
	end          *problem.Error // why no option can be put there, if so
	plain        bool           // the last command passes the options to another shell, which splits them again
	err          error          // the script cannot be parsed
}

// placeholder is one placeholder in a script.
type placeholder struct {
	key     string
	mark    string
	place   place
	here    bool           // it is in a here-document, whose lines no value may imitate
	plain   bool           // another shell splits the value again, so special characters are not allowed
	bare    bool           // the value must be quoted even if no character requires it
	refusal *problem.Error // why no value can be inserted safely
	found   bool
}

// place is the kind of quoting around a placeholder.
type place uint8

const (
	inWord   place = iota // none
	inDouble              // double quotes
	inSingle              // single quotes
	inHere                // the text of a here-document
	inText                // a comment, or after a backslash: not a placeholder
)

// Limits of a script from any source: the parser recurses into nested constructs, and each
// placeholder costs time.
const (
	maxScript       = 128<<10 - 1 // bytes; the kernel accepts no longer argument
	maxNested       = 1000        // parentheses
	maxPlaceholders = 1000
)

// checkScript returns a problem if a script cannot be run, or if parsing it would take too long.
func checkScript(text string) *problem.Error {
	if len(text) > maxScript {
		return problem.Errorf("Put it into a file of the project.",
			"the command's script has %d bytes, and the system allows at most %d", len(text), maxScript)
	}
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth = max(0, depth-1)
		}
		if depth > maxNested {
			return problem.Errorf("Put it into a file of the project.",
				"the command's script has more than %d nested parentheses", maxNested)
		}
	}
	return nil
}

// readScript finds the placeholders of the keys. dialects are the languages in which the script may
// be run: a position is accepted only if all dialects that can parse the script agree on it.
func readScript(text string, known func(key string) bool, dialects ...syntax.LangVariant) *script {
	s := markPlaceholders(text, known)
	if len(s.placeholders) > maxPlaceholders {
		return s
	}
	var first *script
	for _, d := range dialects {
		read := &script{text: s.text, placeholders: append([]placeholder(nil), s.placeholders...), tail: len(s.text)}
		read.parse(d)
		switch {
		case first == nil || first.err != nil:
			first = read
		case read.err == nil:
			first.compareWith(read)
		}
	}
	return first
}

// markPlaceholders replaces each `{key}` with a word that occurs nowhere else in the script.
// `${key}` and `{{key}}` are not placeholders.
func markPlaceholders(text string, known func(string) bool) *script {
	s := &script{}
	stem := "mlfvalue"
	for strings.Contains(text, stem) {
		stem += "q"
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		end := strings.IndexByte(text[i:], '}')
		if text[i] == '{' && end > 0 && known(text[i+1:i+end]) && (i == 0 || text[i-1] != '{' && text[i-1] != '$') {
			h := placeholder{key: text[i+1 : i+end], mark: fmt.Sprintf("%s%dz", stem, len(s.placeholders))}
			s.placeholders = append(s.placeholders, h)
			b.WriteString(h.mark)
			i += end + 1
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	s.text = b.String()
	return s
}

func (s *script) parse(d syntax.LangVariant) {
	file, err := syntax.NewParser(syntax.Variant(d), syntax.KeepComments(true)).Parse(strings.NewReader(s.text), "")
	if err != nil {
		s.err = err
		return
	}
	var stack []syntax.Node
	syntax.Walk(file, func(n syntax.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, n)
		switch n := n.(type) {
		case *syntax.Lit:
			s.locate(stack, n.Value)
		case *syntax.SglQuoted:
			s.locate(stack, n.Value)
		case *syntax.Comment:
			s.locate(stack, n.Text)
		}
		return true
	})
	for i := range s.placeholders {
		if h := &s.placeholders[i]; !h.found {
			h.refusal = h.refuse("in a place that mlfnode does not understand",
				"Give the value to a program as an argument.")
		}
	}
	s.checkVariables(file)
	s.findTail(file)
}

// compareWith rejects the placeholders that another dialect reads differently.
func (s *script) compareWith(o *script) {
	for i := range s.placeholders {
		h, g := &s.placeholders[i], &o.placeholders[i]
		h.bare, h.plain = h.bare || g.bare, h.plain || g.plain
		switch {
		case h.refusal == nil && g.refusal != nil:
			h.refusal = g.refusal
		case h.refusal == nil && (h.place != g.place || h.here != g.here):
			h.refusal = h.refuse("where shells differ in how they read it",
				"Write it in another way, or run the script with bash.")
		}
	}
	s.plain = s.plain || o.plain
	if (s.tail != o.tail || o.end != nil) && s.end == nil {
		s.end = o.end
	}
}

// locate records the place of the placeholders in the text of the innermost node of the stack.
func (s *script) locate(stack []syntax.Node, text string) {
	for i := range s.placeholders {
		h := &s.placeholders[i]
		at := strings.Index(text, h.mark)
		if at < 0 {
			continue
		}
		if h.found {
			h.refusal = h.refuse("in a place that is read twice", "Give the value to a program as an argument.")
			continue
		}
		h.found = true
		before := text[:at]
		h.classify(stack, before)
		slashes := len(before) - len(strings.TrimRight(before, `\`))
		if h.place != inSingle && h.place != inText && slashes%2 == 1 {
			h.place, h.refusal = inText, nil
		}
		if rest := s.text[strings.Index(s.text, h.mark)+len(h.mark):]; rest != "" &&
			(rest[0] == '<' || rest[0] == '>') {
			h.bare = true // a number there would be a file descriptor
		}
	}
}

func (h *placeholder) refuse(where, hint string) *problem.Error {
	return problem.Errorf(hint, "the command has {%s} %s", h.key, where)
}

// classify walks from the script down to the text that holds the placeholder. before is the text
// before the placeholder in that node.
func (h *placeholder) classify(stack []syntax.Node, before string) {
	deny := func(where, hint string) {
		if h.refusal == nil {
			h.refusal = h.refuse(where, hint)
		}
	}
	const asArgument = "Give the value to a program as an argument, or assign it to a variable first: v={%s}."
	name := fmt.Sprintf(asArgument, h.key)
	for i, n := range stack {
		var next syntax.Node
		if i+1 < len(stack) {
			next = stack[i+1]
		}
		switch n := n.(type) {
		case *syntax.Comment:
			h.place, h.refusal = inText, nil
			return
		case *syntax.CmdSubst:
			h.place = inWord
			if n.Backquotes {
				deny("in backquotes, where quotes can't keep its value from being run as code",
					"Write $(...) instead of the backquotes.")
			}
		case *syntax.ProcSubst:
			h.place = inWord
		case *syntax.DblQuoted:
			h.place = inDouble
			if n.Dollar {
				deny(`in $"..."`, `Write "..." without the dollar sign.`)
			}
		case *syntax.SglQuoted:
			h.place = inSingle
			if n.Dollar {
				deny("in $'...', which not every shell knows", "Write '...' without the dollar sign.")
			}
			if h.here {
				deny("in quotes within a here-document", "Use double quotes there.")
			}
		case *syntax.BinaryCmd:
			if (n.Op == syntax.Pipe || n.Op == syntax.PipeAll) && next == syntax.Node(n.X) && runsInputIn(n.Y) {
				h.denyInput(deny)
			}
		case *syntax.Redirect:
			h.redirect(n, next, deny)
			input := n.Hdoc != nil || n.Op == syntax.WordHdoc || n.Op == syntax.RdrIn && isSubstitution(n.Word)
			if owner, ok := stack[i-1].(*syntax.Stmt); ok && input && owner.Cmd != nil && runsInputIn(owner.Cmd) {
				h.denyInput(deny)
			}
		case *syntax.ParamExp:
			if n.Short {
				deny("directly after the name of a variable", "Put that name in braces, like ${name}{"+h.key+"}.")
			} else {
				deny("in ${...}, where its value could be run as code", name)
			}
		case *syntax.ArithmExp, *syntax.ArithmCmd, *syntax.LetClause, *syntax.CStyleLoop, *syntax.ArrayElem:
			if e, ok := n.(*syntax.ArrayElem); !ok || next != syntax.Node(e.Value) {
				deny("in arithmetic, where its value could be run as code",
					"Let a program do the arithmetic, like expr {"+h.key+"} + 1.")
			}
		case *syntax.Assign:
			if n.Name != nil && isOneOf(evaluated, n.Name.Value) {
				deny("in "+n.Name.Value+", whose value shells run", "Leave it out there.")
			}
			if n.Value == nil || next != syntax.Node(n.Value) {
				if _, array := next.(*syntax.ArrayExpr); !array {
					deny("in the name of a variable", "Names can't be values of a sweep.")
				}
			}
		case *syntax.FuncDecl:
			if l, ok := next.(*syntax.Lit); ok && strings.Contains(l.Value, h.mark) {
				deny("in the name of a function", "Names can't be values of a sweep.")
			}
		case *syntax.WordIter:
			if next == syntax.Node(n.Name) {
				deny("in the name of a variable", "Names can't be values of a sweep.")
			}
		case *syntax.ExtGlob:
			deny("in a pattern", name)
		case *syntax.BinaryTest:
			if n.Op >= syntax.TsEql && n.Op <= syntax.TsGtr {
				deny("in arithmetic, where its value could be run as code", "Write [ ... ] instead of [[ ... ]].")
			}
		case *syntax.UnaryTest:
			if n.Op == syntax.TsVarSet || n.Op == syntax.TsRefVar {
				deny("in the name of a variable", "Names can't be values of a sweep.")
			}
		case *syntax.DeclClause:
			h.declare(n, next, deny)
		case *syntax.CallExpr:
			h.call(n, next, deny)
		case *syntax.Word:
			if before == "" && shortBefore(n.Parts, next) {
				h.bare = true // its value must not extend the name
			}
		}
	}
	if d, ok := stack[len(stack)-2].(*syntax.DblQuoted); ok && before == "" &&
		shortBefore(d.Parts, stack[len(stack)-1]) {
		deny("directly after the name of a variable", "Put that name in braces, like ${name}{"+h.key+"}.")
	}
}

// redirect classifies a placeholder in `> word` or in a here-document.
func (h *placeholder) redirect(r *syntax.Redirect, next syntax.Node, deny func(where, hint string)) {
	isHere := r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc
	switch {
	case r.N != nil && next == syntax.Node(r.N):
		deny("in the number of a redirection", "Write the number out.")
	case isHere && next == syntax.Node(r.Word):
		deny("in the delimiter of a here-document", "Write a fixed word there.")
	case isHere:
		h.place, h.here = inHere, true
		for _, part := range r.Word.Parts {
			if l, ok := part.(*syntax.Lit); !ok || strings.Contains(l.Value, `\`) {
				deny("in a here-document with a quoted delimiter, where the shell replaces nothing",
					"Take the quotes off the delimiter (and write \\$ for a dollar sign of the text), or read the "+
						"value from $MLF_PARAMS.")
			}
		}
	}
}

// declare classifies a placeholder in an argument of declare, export or a similar command: an
// option can make an assignment arithmetic.
func (h *placeholder) declare(d *syntax.DeclClause, next syntax.Node, deny func(where, hint string)) {
	for _, a := range d.Args {
		if a.Naked && next == syntax.Node(a) {
			deny("in the name of a variable", "Names can't be values of a sweep.")
		}
		if option := a.Value; a.Naked && option != nil && strings.HasPrefix(option.Lit(), "-") &&
			strings.ContainsAny(option.Lit(), "in") {
			deny("in a declaration that evaluates its value", "Assign it with v={"+h.key+"} alone.")
		}
	}
}

// call classifies a placeholder in an argument of a command: some arguments are programs
// themselves.
func (h *placeholder) call(c *syntax.CallExpr, next syntax.Node, deny func(where, hint string)) {
	words := literals(c.Args)
	at := -1
	for i, w := range c.Args {
		if next == syntax.Node(w) {
			at = i
		}
	}
	if at < 0 {
		return
	}
	if at == 0 {
		h.bare = true // it could be a reserved word or an assignment
	}
	if k := scriptArgument(words); k >= 0 && at == k {
		deny("in a script within the script, which would read its value as code",
			`Give it to that script as an argument, like sh -c '... "$1"' sh {`+h.key+"}.")
	}
	switch interpretationOf(words, at) {
	case asCode:
		deny("in the arguments of "+words[commandIndex(words)]+", which would read its value as code",
			"Assign it to a variable first: v={"+h.key+"}.")
	case asWords:
		h.plain = true
	}
	if command := words[0]; at > 0 && (command == "test" || command == "[" || command == "printf") &&
		(words[at-1] == "-v" || words[at-1] == "-R") {
		deny("in the name of a variable", "Names can't be values of a sweep.")
	}
	if k := commandIndex(words); k < len(words) && isSubstitution(c.Args[at]) && (isOneOf(shells, words[k]) ||
		isOneOf(foreignShells, words[k]) || words[k] == "source" || words[k] == ".") {
		h.denyInput(deny) // as in `source <(…)`
	}
}

// denyInput rejects a placeholder in text that a shell reads and runs.
func (h *placeholder) denyInput(deny func(where, hint string)) {
	deny("in text that another command runs as a script",
		`Give the value to that script as an argument, like sh -s -- {`+h.key+`} and "$1" in it.`)
}

func isSubstitution(w *syntax.Word) bool {
	for _, p := range w.Parts {
		if _, ok := p.(*syntax.ProcSubst); ok {
			return true
		}
	}
	return false
}

// shortBefore reports whether a part of a word follows $name or $1.
func shortBefore(parts []syntax.WordPart, n syntax.Node) bool {
	for i, p := range parts {
		if syntax.Node(p) == n && i > 0 {
			e, ok := parts[i-1].(*syntax.ParamExp)
			return ok && e.Short
		}
	}
	return false
}

// shells are the programs that take a script after -c.
const shells = " sh bash rbash dash ash ksh ksh93 rksh mksh lksh oksh yash posh zsh "

// scriptArgument returns the index of the script in a command line such as `bash -e -c SCRIPT`, or
// -1. Words that are not known before the command runs are empty.
func scriptArgument(words []string) int {
	for i, w := range words {
		if w == "" || !strings.Contains(shells, " "+path.Base(w)+" ") {
			continue
		}
		for k := i + 1; k+1 < len(words) && len(words[k]) > 1 && (words[k][0] == '-' || words[k][0] == '+'); k++ {
			option := words[k]
			switch {
			case strings.HasPrefix(option, "--"):
			case strings.Contains(option, "c"):
				for k++; k+1 < len(words) && len(words[k]) > 1 && words[k][0] == '-'; k++ { // options can follow -c
				}
				return k
			case strings.HasSuffix(option, "o") || strings.HasSuffix(option, "O"):
				k++
			}
		}
	}
	return -1
}

// findTail finds the end of the last command's arguments.
func (s *script) findTail(f *syntax.File) {
	const hint = "Name the parameters in the command, like {%s}, or end it with the command that takes them."
	if len(f.Stmts) == 0 {
		return
	}
	last := f.Stmts[len(f.Stmts)-1]
	for {
		b, ok := last.Cmd.(*syntax.BinaryCmd)
		if !ok || last.Background {
			break
		}
		last = b.Y
	}
	if t, ok := last.Cmd.(*syntax.TimeClause); ok && t.Stmt != nil {
		last = t.Stmt
	}
	c, ok := last.Cmd.(*syntax.CallExpr)
	if !ok || len(c.Args) == 0 || last.Background {
		s.end = problem.Errorf(hint,
			"the command ends with something that takes no options, but parameters must be appended to it")
		return
	}
	s.tail = int(c.Args[len(c.Args)-1].End().Offset())
	switch words := literals(c.Args); interpretationOf(words, len(words)) {
	case asCode:
		s.end = problem.Errorf(hint, "the command ends with %s, which reads as code what is appended to it",
			words[commandIndex(words)])
	case asWords:
		s.plain = true
	}
}

// fill inserts values, and options after the last command. Values in here-documents become
// variables, because no quoting keeps a value from looking like the line that ends the document.
func (s *script) fill(value func(key string) string, options string) string {
	var first strings.Builder
	pairs := make([]string, 0, 2*len(s.placeholders))
	for i, h := range s.placeholders {
		text := value(h.key)
		variable := ""
		if h.here && h.place != inText {
			variable = fmt.Sprintf("${%s}", h.mark)
			fmt.Fprintf(&first, "%s='%s'\n", h.mark, strings.ReplaceAll(text, "'", `'\''`))
		}
		pairs = append(pairs, h.mark, s.placeholders[i].embed(text, variable))
	}
	r := strings.NewReplacer(pairs...)
	return first.String() + r.Replace(s.text[:s.tail]) + options + r.Replace(s.text[s.tail:])
}

// embed writes a value as its position requires.
func (h *placeholder) embed(value, variable string) string {
	switch {
	case h.place == inText:
		return "{" + h.key + "}"
	case variable != "" && h.place == inWord:
		return `"` + variable + `"`
	case variable != "":
		return variable
	case h.place == inSingle:
		return strings.ReplaceAll(value, "'", `'\''`)
	case h.place == inDouble:
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(value)
	case !h.bare && isSafe(value) && !strings.ContainsAny(value, ",=") && !strings.Contains(value, ".."):
		return value // a shell reads it literally at any position in a word
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

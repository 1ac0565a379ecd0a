package main

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The measures of the house style.
const (
	longestFile     = 800 // lines
	medianFile      = 200
	longestFunction = 120
	documentedNames = 96 // percent
	widestComment   = 100
	widestCode      = 120
	longText        = 60 // a text of so many columns stays whole, and its line may be longer
	tabWidth        = 4
)

// house is what the style is measured on: the product's files, parsed.
type house struct {
	fset  *token.FileSet
	files map[string]*ast.File
}

func parseHouse(t *testing.T) *house {
	t.Helper()
	h := &house{fset: token.NewFileSet(), files: map[string]*ast.File{}}
	eachGoFile(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(h.fset, filepath.Join(root, path), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		h.files[path] = f
	})
	return h
}

func (h *house) lines(n ast.Node) int {
	return h.fset.Position(n.End()).Line - h.fset.Position(n.Pos()).Line + 1
}

func (h *house) functions() []*ast.FuncDecl {
	var all []*ast.FuncDecl
	for _, f := range h.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				all = append(all, fn)
			}
		}
	}
	return all
}

func TestPackageComments(t *testing.T) {
	commented := map[string]bool{}
	for path, f := range parseHouse(t).files {
		commented[filepath.Dir(path)] = commented[filepath.Dir(path)] || f.Doc != nil
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

func TestSizes(t *testing.T) {
	h := parseHouse(t)
	var files []int
	for path, f := range h.files {
		n := h.fset.File(f.Pos()).LineCount()
		if files = append(files, n); n > longestFile {
			t.Errorf("%s has %d lines, want at most %d", path, n, longestFile)
		}
	}
	if got := median(files); got > medianFile {
		t.Errorf("the median file has %d lines, want at most %d", got, medianFile)
	}
	for _, fn := range h.functions() {
		if n := h.lines(fn); n > longestFunction {
			t.Errorf("%s has %d lines, want at most %d", h.fset.Position(fn.Pos()), n, longestFunction)
		}
	}
}

func TestWidths(t *testing.T) {
	eachGoFile(t, func(path string) {
		src, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		texts := linesWithTexts(path, src)
		n := 0
		for line := range strings.Lines(string(src)) {
			n++
			limit := widestCode
			if text := strings.TrimSpace(line); strings.HasPrefix(text, "//") && !strings.HasPrefix(text, "//\t") {
				limit = widestComment
			}
			if w := width(strings.TrimSuffix(line, "\n")); w > limit && !texts[n] {
				t.Errorf("%s:%d has %d columns, want at most %d", path, n, w, limit)
			}
		}
	})
}

// linesWithTexts returns the lines of a file that a long text crosses or lies on.
func linesWithTexts(path string, src []byte) map[int]bool {
	fset := token.NewFileSet()
	file := fset.AddFile(path, -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	lines := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return lines
		}
		if tok == token.STRING && width(lit) >= longText {
			first := file.Line(pos)
			for i := range strings.Count(lit, "\n") + 1 {
				lines[first+i] = true
			}
		}
	}
}

func width(line string) int {
	return utf8.RuneCountInString(line) + (tabWidth-1)*strings.Count(line, "\t")
}

func median(n []int) int {
	slices.Sort(n)
	return n[len(n)/2]
}

func TestDocumentedNames(t *testing.T) {
	h := parseHouse(t)
	names, missing := 0, []string{}
	count := func(name *ast.Ident, docs ...*ast.CommentGroup) {
		if !name.IsExported() {
			return
		}
		names++
		if !slices.ContainsFunc(docs, func(c *ast.CommentGroup) bool { return c != nil }) {
			missing = append(missing, h.fset.Position(name.Pos()).String()+" "+name.Name)
		}
	}
	for _, f := range h.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if exportedReceiver(d) {
					count(d.Name, d.Doc)
				}
			case *ast.GenDecl:
				countSpecs(d, count)
			}
		}
	}
	if (names-len(missing))*100 < documentedNames*names {
		t.Errorf("%d of %d exported names have no comment:\n%s", len(missing), names, strings.Join(missing, "\n"))
	}
}

func countSpecs(d *ast.GenDecl, count func(*ast.Ident, ...*ast.CommentGroup)) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			count(s.Name, d.Doc, s.Doc, s.Comment)
		case *ast.ValueSpec:
			for _, name := range s.Names {
				count(name, d.Doc, s.Doc, s.Comment)
			}
		}
	}
}

// exportedReceiver reports whether a function can be reached under an exported name.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	of := d.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	name, ok := of.(*ast.Ident)
	return !ok || name.IsExported()
}

func TestRefusedConstructs(t *testing.T) {
	h := parseHouse(t)
	for path, f := range h.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: func init: state is made by constructors", h.fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" {
					t.Errorf("%s: time.Sleep: select on a timer and the context", h.fset.Position(n.Pos()))
				}
			}
			return true
		})
		if name := filepath.Base(filepath.Dir(path)); slices.Contains([]string{"util", "utils", "common",
			"helper", "helpers"}, name) {
			t.Errorf("%s: a package is named after what it does", path)
		}
	}
}

// TestUnusedMethodsAreLeftOut looks for code that calls methods by names that only show at run
// time. The linker then keeps every exported method of every type: such a program has an eighth
// more code, which a node that rests keeps in memory.
func TestUnusedMethodsAreLeftOut(t *testing.T) {
	if testing.Short() {
		t.Skip("links the program")
	}
	out, err := exec.Command("go", "build", "-o", "/dev/null", "-ldflags=-dumpdep", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if from, to, _ := strings.Cut(line, " -> "); strings.HasSuffix(strings.TrimSpace(to), "<ReflectMethod>") {
			t.Errorf("%s is reachable from %s", strings.TrimSpace(to), from)
		}
	}
}

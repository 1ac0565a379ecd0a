package projects

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid/gridtest"
)

// quoted returns a string as a Python literal.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case r > 0x7f && r%2 == 0:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + "'"
}

func TestLiteral(t *testing.T) {
	for _, c := range []struct {
		text string
		want any
	}{
		{`1`, source("1")}, {`-1.5e-3`, source("-1.5e-3")}, {`True`, source("True")}, {`None # why`, source("None")},
		{`[]`, []any{}}, {`()`, []any{}}, {`{}`, [][2]any{}}, {`('a',)`, []any{"a"}}, {`(('a'))`, "a"},
		{`['a']`, []any{"a"}},
		{"[ 'a', # one\n  'b',\n]", []any{"a", "b"}},
		{"['a'\n'b', \"c\" \"d\"]", []any{"ab", "cd"}},
		{"'a'\n'b'", "a"},
		{`{'a': 1, "b": [2, (3, 4)], 5: {'c': None}}`,
			[][2]any{{"a", source("1")}, {"b", []any{source("2"), []any{source("3"), source("4")}}},
				{source("5"), [][2]any{{"c", source("None")}}}}},
		{`'x';`, "x"},
	} {
		got, err := statement(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, diff)
		}
	}
}

func TestNoLiteral(t *testing.T) {
	for _, text := range []string{``, `x`, `nan`, `inf`, `-Infinity`, `true`, `f'x'`, `[x]`, `['a' + 'b']`,
		`['a'`, `['a' 1]`, `('a' % b)`, `{'a'}`,
		`{'a': }`, `{'a' 1}`, `{'a': 1`, `{**a}`, `[*a]`, `'a`, "'a\nb'", `'''a'`, `'a' + b`, `['a'] + b`, `'a'.b`,
		`'a', 'b'`, `'\xff'`, `'\777'`,
		`'\ud800'`, `'\U00110000'`, `'\N{DASH}'`, `'\x4'`, `'\u12'`, `1 + 2`, `1j`, `[i for i in x]`,
		`lambda: 0`, `open('x')`,
		strings.Repeat("[", 60) + strings.Repeat("]", 60)} {
		if got, err := statement(text); err == nil {
			t.Errorf("%s: got %v, want it refused", text, got)
		}
	}
}

func TestLiteralStrings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "text")
		got, err := statement(quoted(want))
		if err != nil || got != want {
			t.Fatalf("%s: got %q, %v, want %q", quoted(want), got, err, want)
		}
	})
}

// TestLiteralAsPython compares literal with Python itself.
func TestLiteralAsPython(t *testing.T) {
	python := gridtest.Program(t, "python3")
	const script = "import ast, sys\nfor line in sys.stdin.read().split('\\x1e')[:-1]:\n" +
		"    sys.stdout.buffer.write((ast.literal_eval(line) + '\\x1e').encode())\n"
	var in, want strings.Builder
	for _, source := range []string{`'a\'b'`, `"a\"b"`, `'a\\"b'`, `'\d\n'`, `'tab\tend'`, `'\0'`,
		`'\101\x41\u00e9\U0001F600'`, `r'\n\'x'`, `'''a
b"c'''`, `'a\
b'`, `"" "x" 'y'`, `("a"
  "b")`, `u'ü'`, `('one')`, `'%'`, `"\a\b\f\v\r"`, `'\\\\n'`, `R"\\"`, `'\8\q\400'[:3]`} {
		if v, err := statement(source); err == nil {
			text, ok := v.(string)
			if !ok {
				t.Errorf("%s: got %v, want a string", source, v)
			}
			in.WriteString(source + "\x1e")
			want.WriteString(text + "\x1e")
		} else if !strings.Contains(source, "[:3]") {
			t.Errorf("%s: %v", source, err)
		}
	}
	cmd := exec.Command(python, "-I", "-W", "ignore", "-c", script)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	check(t, err)
	if diff := cmp.Diff(strings.Split(string(out), "\x1e"), strings.Split(want.String(), "\x1e")); diff != "" {
		t.Errorf("Python reads it otherwise (-python +here):\n%s", diff)
	}
}

// FuzzLiteral looks for texts that cause a panic, take long or never end, and for reads past the
// end of the text.
func FuzzLiteral(f *testing.F) {
	for _, text := range []string{`['a', "b"]`, `{'a': 1, 2: (3,)}`, `'''a''' r"\d" u'\u00e9'`,
		`[[[[`, `('a'`, `'\N{x}\777'`, "# x\n1", `-1e5`, `{1:`, "'a' \\\n'b'", `''''`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		begun := time.Now()
		v, rest, err := literal(text)
		if took := time.Since(begun); took > 5*time.Second {
			t.Fatalf("took %v", took)
		}
		if err == nil && (v == nil || !strings.HasSuffix(text, rest) || len(rest) == len(text)) {
			t.Fatalf("got %v and the rest %q of %q", v, rest, text)
		}
	})
}

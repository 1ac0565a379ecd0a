package space

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid/problem"
)

func TestBadParameters(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"a: null", "parameters.yml:1:4: a has no value (null). Give a value, write \"\" for empty text, or false to leave the option out."},
		{"a:", "parameters.yml:1:3: a has no value (null). Give a value, write \"\" for empty text, or false to leave the option out."},
		{"a: ~", "parameters.yml:1:4: a has no value (null). Give a value, write \"\" for empty text, or false to leave the option out."},
		{"a: {b: 1}", "parameters.yml:1:5: a is a map with the unknown key \"b\". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys."},
		{"a: [1, [[2]]]", "parameters.yml:1:9: a has a list in a list. Write the arguments in one flat list."},
		{"a: [1, []]", "parameters.yml:1:8: a has an empty list among its values. Give it one argument or more, or write false to leave the option out."},
		{"a: [[1, null]]", "parameters.yml:1:9: a has no value (null). Give a value, write \"\" for empty text, or false to leave the option out."},
		{"a: []", "parameters.yml:1:4: a has an empty list. Give it one value or more, or leave the key out."},
		{"a: !!python/tuple [1, 5, 0]", "parameters.yml:1:4: a has step 0. Use a step that leads from start to end."},
		{"a: !!python/tuple [5, 1]",
			"parameters.yml:1:4: a has no values because step 1 leads away from 5 to 1. Swap start and end, or change the sign of the step."},
		{"a: !!python/tuple [1, 5, -1]",
			"parameters.yml:1:4: a has no values because step -1 leads away from 1 to 5. Swap start and end, or change the sign of the step."},
		{"a: !!python/tuple [1]",
			"parameters.yml:1:4: a is an interval of 1 number. Give start, end and, if it isn't 1, step: an interval holds start but not end."},
		{"a: !!python/tuple []",
			"parameters.yml:1:4: a is an interval of 0 numbers. Give start, end and, if it isn't 1, step: an interval holds start but not end."},
		{"a: !!python/tuple [1, 2, 3, 4]",
			"parameters.yml:1:4: a is an interval of 4 numbers. Give start, end and, if it isn't 1, step: an interval holds start but not end."},
		{"a: !!python/tuple [3, 3]",
			"parameters.yml:1:4: a has no values because its interval starts and ends at 3. The end is not part of an interval, so make it larger, or give the one value alone."},
		{"a: !!python/tuple [x, 3]",
			"parameters.yml:1:4: a has the start \"x\", which is not a number. Use a plain decimal number, like 10, -0.5 or 1e-3."},
		{"a: !!python/tuple [010, 30]",
			"parameters.yml:1:4: a has the start \"010\", which is not a number. Use a plain decimal number, like 10, -0.5 or 1e-3."},
		{"a: 1\na: 2",
			"parameters.yml:2:1: the key a is given twice, first in line 1. Put all its values in one list."},
		{"a: [1, 2, 1]",
			"parameters.yml:1:11: a has the value 1 twice. Keep it once: it would run the same point again."},
		{"a: [1, \"1\"]",
			"parameters.yml:1:8: a has the value \"1\" twice. Keep it once: it would run the same point again."},
		{"a: !foo 1", "parameters.yml:1:4: a has the unknown tag !foo. Leave it out; !!python/tuple on an interval is the only special tag."},
		{"a: !!python/object/apply:os.system [\"ls\"]",
			"parameters.yml:1:4: a has the unknown tag !!python/object/apply:os.system. Leave it out; !!python/tuple on an interval is the only special tag."},
		{"a: !!python/name:x y",
			"parameters.yml:1:4: a has the unknown tag !!python/name:x. Leave it out; !!python/tuple on an interval is the only special tag."},
		{"<<: {a: 1}", "parameters.yml:1:1: merge keys (<<) are not supported. Write the parameters out."},
		{"b: &x {c: 1}\na:\n  <<: *x",
			"parameters.yml:1:8: b is a map with the unknown key \"c\". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys.\nparameters.yml:3:3: a is a map with the unknown key \"<<\". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys."},
		{"true: 1", "parameters.yml:1:1: the key \"true\" is not text. Write the key as plain text, or in quotes."},
		{"? [a]\n: 1", "parameters.yml:1:3: a key is not text. Write the key as plain text, or in quotes."},
		{"~: 1", "parameters.yml:1:1: the key \"~\" is not text. Write the key as plain text, or in quotes."},
		{"\"a b\": 1", "parameters.yml:1:1: the key \"a b\" contains white space. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."},
		{"\"a=b\": 1", "parameters.yml:1:1: the key \"a=b\" contains '='. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."},
		{"-a: 1", "parameters.yml:1:1: the key \"-a\" starts with '-'. Leave the dashes out: they are added when the option is made."},
		{"\"--a\": 1", "parameters.yml:1:1: the key \"--a\" starts with '-'. Leave the dashes out: they are added when the option is made."},
		{"\"a\\tb\": 1", "parameters.yml:1:1: the key \"a\\tb\" contains white space. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."},
		{strings.Repeat("k", 201) + ": 1", "parameters.yml:1:1: the key \"" + strings.Repeat("k", 60) +
			"\"… has 201 bytes; at most 200 are allowed. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."},
		{"\"a\\0b\": 1", "parameters.yml:1:1: the key \"a\\x00b\" contains a control character. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."},
		{"\"\": 1", "parameters.yml:1:1: a key is empty. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'."},
		{"a: .nan", "parameters.yml:1:4: a has the value .nan, which is not a finite number. Put it in quotes if the program should see this text."},
		{"a: [1, .inf]", "parameters.yml:1:8: a has the value .inf, which is not a finite number. Put it in quotes if the program should see this text."},
		{"a: -.INF", "parameters.yml:1:4: a has the value -.INF, which is not a finite number. Put it in quotes if the program should see this text."},
		{"a: {start: 1, end: .inf}",
			"parameters.yml:1:20: a.end has the value .inf, which is not a finite number. Put it in quotes if the program should see this text."},
		{"a: 1\n---\nb: 2", "parameters.yml:2:1: a second document starts here. Keep one document in the file, without '---' between parts."},
		{"- a\n- b",
			"parameters.yml:1:1: the file is not a map of parameters to values. Write lines like batchsize: [50, 100]."},
		{"hello",
			"parameters.yml:1:1: the file is not a map of parameters to values. Write lines like batchsize: [50, 100]."},
		{"a:\n\t- 1", "parameters.yml:2:1: a tab is used where YAML requires spaces. Use spaces to indent."},
		{"a: [1, 2", "parameters.yml:1:1: this is not valid YAML: did not find expected ',' or ']'. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: 1\n b: 2", "parameters.yml:2:2: this is not valid YAML: mapping values are not allowed in this context. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: \"x", "parameters.yml:1:1: this is not valid YAML: found unexpected end of stream. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: *x", "parameters.yml:1:1: this is not valid YAML: unknown anchor 'x' referenced. Mark the value that is meant with & and this name, above its first use, or put the text in quotes."},
		{"\xff: 1", "parameters.yml:1:1: the file is not valid UTF-8. Save it as UTF-8."},
		{"a: 1\nb: \xffx", "parameters.yml:2:4: the file is not valid UTF-8. Save it as UTF-8."},
		{"a: {start: 1}", "parameters.yml:1:4: a is a map, but not a formula. A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys."},
		{"a: {start: 1, end: 5, by: 2}",
			"parameters.yml:1:23: a is a map with the unknown key \"by\". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys."},
		{"a: {linspace: [0, 1]}",
			"parameters.yml:1:15: a needs a list of three numbers for linspace. Give a, b and n, like [0, 1, 11]."},
		{"a: {linspace: 3}",
			"parameters.yml:1:15: a needs a list of three numbers for linspace. Give a, b and n, like [0, 1, 11]."},
		{"a: {linspace: [0, 1, 0]}",
			"parameters.yml:1:4: a asks for \"0\" values. Give the number of values as a whole number from 1."},
		{"a: {linspace: [0, 1, 1.5]}",
			"parameters.yml:1:4: a asks for \"1.5\" values. Give the number of values as a whole number from 1."},
		{"a: {linspace: [1, 1, 3]}",
			"parameters.yml:1:4: a runs from a number to the same number, so its values are all the same. Give the one value alone."},
		{"a: {logspace: [0, 1000, 3]}",
			"parameters.yml:1:4: a leaves the range of 64-bit numbers. A logspace holds 10^a to 10^b."},
		{"a: {linspace: [0, 1, 3], start: 1}",
			"parameters.yml:1:4: a is a map, but not a formula. A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys."},
		{"a: {start: 1, end: 2, start: 3}", "parameters.yml:1:23: a has start twice. Keep one of them."},
		{"a: \"x\\0y\"", "parameters.yml:1:4: a has a value with a zero byte, which a program's argument can't contain. Put such data in a file of the project and give the file's name."},
		{"a: [{b: 1}]",
			"parameters.yml:1:5: a has a map among its values. Give every parameter its own key at the left margin."},
		{"a: !!int x", "parameters.yml:1:4: a is tagged !!int but contains \"x\". Leave the tag out."},
		{"a: 2001-01-01 00:00:00\nb: @x",
			"parameters.yml:2:1: this is not valid YAML: found character that cannot start any token. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: [1,\n  null, {x: 1}, [[2]], .inf, 1]\nb:\nc: []",
			"parameters.yml:2:3: a has no value (null). Give a value, write \"\" for empty text, or false to leave the option out.\nparameters.yml:2:9: a has a map among its values. Give every parameter its own key at the left margin.\nparameters.yml:2:18: a has a list in a list. Write the arguments in one flat list.\nparameters.yml:2:24: a has the value .inf, which is not a finite number. Put it in quotes if the program should see this text.\nparameters.yml:2:30: a has the value 1 twice. Keep it once: it would run the same point again.\nparameters.yml:3:3: b has no value (null). Give a value, write \"\" for empty text, or false to leave the option out.\nparameters.yml:4:4: c has an empty list. Give it one value or more, or leave the key out."},
		{"a: !!set {x}", "parameters.yml:1:4: a has the unknown tag !!set. Leave it out; !!python/tuple on an interval is the only special tag."},
		{"a: &x [1, 2]\nb: [[*x]]",
			"parameters.yml:2:6: b has a list in a list. Write the arguments in one flat list."},
		{"a: &x {start: 1, end: 3}\nb: *x", "parameters.yml:2:4: b is an alias to a map. Write the formula out."},
		{"a: {start: 1, end: 100000000000000000000000, step: 1}",
			"parameters.yml:1:4: a has more values than 64 bits can count. Use a larger step."},
		{"a: !!python/tuple [1, 1e999]",
			"parameters.yml:1:4: a has the end 1e999, which is out of range. Use a number with fewer digits."},
		{"!!foo\na: 1", "parameters.yml:1:1: the file has the unknown tag !!foo. Leave it out; !!python/tuple on an interval is the only special tag."},
		{"a: {}", "parameters.yml:1:4: a is a map, but not a formula. A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys."},
		{"%YAML 9.9\n---\na: 1",
			"parameters.yml:1:1: this is not valid YAML: found incompatible YAML document. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: 1\n...\nb: 2", "parameters.yml:3:1: this is not valid YAML: did not find expected <document start>. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: 1\a", "parameters.yml:1:1: this is not valid YAML: control characters are not allowed. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: 1\nb: [1, 2\nc: 3\n",
			"parameters.yml:2:1: this is not valid YAML: did not find expected ',' or ']'. Check this line and those before it for a missing colon, quote, bracket or space."},
		{"a: &x [1]\n*x : 2", "parameters.yml:2:1: a key is not text. Write the key as plain text, or in quotes."},
		{"a: !!bool 3", "parameters.yml:1:4: a is tagged !!bool but contains \"3\". Leave the tag out."},
		{"a: [true, true]",
			"parameters.yml:1:11: a has the value true twice. Keep it once: it would run the same point again."},
		{"k: 1\n\n\nl: \"x\ny: 2\n",
			"parameters.yml:4:1: this is not valid YAML: found unexpected end of stream. Check this line and those before it for a missing colon, quote, bracket or space."},
	} {
		_, err := ParseParameters("parameters.yml", []byte(c.file))
		if got := fmt.Sprint(err); got != c.want {
			t.Errorf("%q:\ngot  %s\nwant %s", c.file, got, c.want)
		}
		if problems := (problem.List)(nil); !errors.As(err, &problems) {
			t.Errorf("%q: got error type %T, want Problems", c.file, err)
		}
	}
}

func TestGoodParameters(t *testing.T) {
	const file = `# the grid of the demo
n: [5, 6]
epoch: !!python/tuple [5, 20, 5]
down: !!python/tuple [3, 0.5, -1]
batchsize: 100
gpu: "-1"
lr: 1e-3
width: [010, 1.10, 0x10, .5, +1, 1_000]
text: [yes, on, "true", 'null', 2001-01-01, a b, ""]
flag: [true, False]
"quoted key"x: no
`
	want := `n=5#6# epoch=5#10#15# down=3#2#1# batchsize=100# gpu=-1 lr=1e-3# width=010 1.10#0x10 .5 +1 1_000 ` +
		`text=yes on true null 2001-01-01 a b  flag=+ - lin=0#0.5#1# log=0.1#1#10# iv=0#2#4# block=x_y also=5 6 0 1 2 many=5#6# once=5#`
	good := strings.Replace(file, "\"quoted key\"x: no\n", `lin: {linspace: [0, 1, 3]}
log:
  logspace: [-1, 1, 3]
iv: {start: 0, end: 5, step: 2}
block: "x_y"
also: ["5", !!str 6, !!str 0, "1", "2"]
many: &many [&five 5, 6]
`, 1) + "once: *five\n"
	axes, err := ParseParameters("parameters.yml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(axes); got != want {
		t.Errorf("axes differ: %s", cmp.Diff(want, got))
	}
}

// describe marks numbers with # and flags with + or -.
func describe(axes []Axis) string {
	var out []string
	for _, a := range axes {
		s, _ := newSeries(a)
		var b strings.Builder
		for i := range s.count() {
			v := s.at(i)
			b.WriteString([...]string{v.Text + " ", v.Text + "#", "+ ", "- "}[v.Kind])
		}
		out = append(out, a.Key+"="+strings.TrimSuffix(b.String(), " "))
	}
	return strings.Join(out, " ")
}

func TestEmptyParametersAreOnePoint(t *testing.T) {
	for _, file := range []string{"", "\n", "# nothing\n", "---\n", "{}", "--- {}\n"} {
		axes, err := ParseParameters("p", []byte(file))
		if err != nil || len(axes) != 0 {
			t.Errorf("%q: got %v, %v, want no axes", file, axes, err)
		}
	}
}

func TestProblemsAreCapped(t *testing.T) {
	_, err := ParseParameters("p", []byte(strings.Repeat("a:\n", 1000)))
	problems := problem.List(nil)
	if !errors.As(err, &problems) || len(problems) != problem.MaxListed {
		t.Fatalf("got %d problems, want %d", len(problems), problem.MaxListed)
	}
	if want := "There may be more problems after these."; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %q, want it to end with %q", err, want)
	}
}

// bombs returns files that would cost a careless parser seconds or gigabytes.
func bombs() map[string]string {
	laughs := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'k'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	wide := "a: &a [" + strings.Repeat("x,", 100_000) + "]\n" + keys(20_000, "*a")
	distinct := "a: &a [" + strings.ReplaceAll(strings.ReplaceAll(keys(60_000, ""), "k", ""), ": \n", ",") +
		"]\n" + keys(20_000, "*a")
	return map[string]string{
		"billion laughs": laughs, "repeated alias": wide, "repeated alias of distinct values": distinct,
		"ten megabytes": "a: [" + strings.Repeat("1234567, ", 10<<20/9) + "1]", "brackets": strings.Repeat("[", 1<<20),
		"brackets and keys": strings.Repeat("{a: [", 1<<17), "dashes": strings.Repeat("- ", 1<<19),
		"questions": strings.Repeat("? ", 1<<19),
		"stairs":    stairs(1400), "quote": "a: \"" + strings.Repeat("\\n", 500_000),
		"huge exponent":  "a: !!python/tuple [0, 1e999999999]",
		"huge exponents": "a: !!python/tuple [1e400, 2e400, 1e-400]", "anchors": strings.Repeat("&a ", 300_000),
		"tags": strings.Repeat("!a ", 300_000),
		"keys": keys(100_000, "1") + "k0: 1\n", "colons": strings.Repeat("a: ", 300_000),
		"comments": strings.Repeat("#\n", 500_000) + "- a",
	}
}

func keys(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: %s\n", i, value)
	}
	return b.String()
}

func stairs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestBombsAreRefusedAtOnce(t *testing.T) {
	for name, file := range bombs() {
		start := time.Now()
		axes, err := ParseParameters("p", []byte(file))
		if err == nil {
			t.Errorf("%s: got %d axes, want an error", name, len(axes))
			continue
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%s: took %v, want it refused immediately", name, took)
		}
		if len(err.Error()) > 20_000 {
			t.Errorf("%s: got a message of %d bytes", name, len(err.Error()))
		}
		t.Logf("%s: %v: %.120s", name, time.Since(start), err)
	}
}

func FuzzParseParameters(f *testing.F) {
	for _, file := range bombs() {
		if len(file) < 5000 {
			f.Add([]byte(file))
		}
	}
	f.Add(
		[]byte(
			"a: [1, true, \"x\"]\nb: !!python/tuple [1, 2.5, 0.5]\nc: {linspace: [0, 1, 3]}\nd: {logspace: [0, 1, 3]}\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		axes, err := ParseParameters("p", file)
		if err != nil {
			if problems := (problem.List)(nil); !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("got error %T %v, want Problems", err, err)
			}
			return
		}
		checkAxes(t, axes)
	})
}

// checkAxes checks that the parsed axes form a valid space.
func checkAxes(t *testing.T, axes []Axis) {
	for _, a := range axes {
		s, err := New([]Axis{a}, nil)
		if err != nil {
			t.Fatalf("space of %+v: %v", a, err)
		}
		for _, i := range []int64{0, s.Count() / 2, s.Count() - 1} {
			if back, ok := s.Index(mustAt(s, i)); !ok || back != i {
				t.Fatalf("index of point %d %q: got %d, %v", i, mustAt(s, i), back, ok)
			}
		}
	}
}

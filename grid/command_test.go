package grid

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid/gridtest"
)

func number(key, text string) Param { return Param{key, Value{text, Number}} }
func plain(key, text string) Param  { return Param{key, Value{text, Text}} }

func TestArgv(t *testing.T) {
	on, off := Value{"true", True}, Value{"false", False}
	for name, c := range map[string]struct {
		task   Task
		params Params
		want   []string
	}{
		"options": {Task{Command: []string{"p", "-u"}}, Params{number("lr", "1e-3"), plain("s", "a b"), {"on", on}, {"off", off}, plain("e", "")},
			[]string{"p", "-u", "--lr=1e-3", "--s=a b", "--on", "--e="}},
		"constants first, replaced in place": {Task{Command: []string{"p"}, Constants: Params{plain("out", "r"), number("n", "1"), plain("z", "z")}},
			Params{number("lr", "1"), number("n", "2")}, []string{"p", "--out=r", "--n=2", "--z=z", "--lr=1"}},
		"a flag replaces a constant": {Task{Command: []string{"p"}, Constants: Params{{"v", on}}}, Params{{"v", off}}, []string{"p"}},
		"placeholders": {Task{Command: []string{"p", "{lr}", "x={n}/{lr}", "{other}", "{{lr}}", "{", "}", "{a {n}"}, Constants: Params{number("n", "7")}},
			Params{number("lr", "0.1"), number("z", "1")}, []string{"p", "0.1", "x=7/0.1", "{other}", "{{lr}}", "{", "}", "{a 7", "--z=1"}},
		"JSON":           {Task{Command: []string{"p", `{"a": {lr}, "b": {}}`}}, Params{number("lr", "1")}, []string{"p", `{"a": 1, "b": {}}`}},
		"escaped only":   {Task{Command: []string{"p", "{{lr}}"}}, Params{number("lr", "1")}, []string{"p", "{{lr}}", "--lr=1"}},
		"flag in place":  {Task{Command: []string{"p", "{on}", "{off}"}}, Params{{"on", on}, {"off", off}}, []string{"p", "true", "false"}},
		"no second turn": {Task{Command: []string{"p", "{a}"}}, Params{plain("a", "{b}"), plain("b", "x")}, []string{"p", "{b}", "--b=x"}},
		"shell": {Task{Shell: "a | p\n", Constants: Params{plain("o", "x")}}, Params{plain("s", "it's $x"), {"on", on}},
			[]string{"/bin/sh", "-c", `a | p --o=x --s='it'\''s $x' --on`}},
		"shell placeholders": {Task{Shell: `p {a} "{a}" '{a}' "$(p {a})" ${a} {{a}} {b} # {a}`}, Params{plain("a", `$'"`)},
			[]string{"/bin/sh", "-c", `p '$'\''"' "\$'\"" '$'\''"' "$(p '$'\''"')" ${a} {{a}} {b} # {a}`}},
	} {
		if got := c.task.Argv(c.params); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %s", name, cmp.Diff(c.want, got))
		}
	}
}

// TestShellKeepsValues runs a real shell: a value reaches the program as it is, wherever its placeholder stands.
func TestShellKeepsValues(t *testing.T) {
	places := []string{
		`printf %s {v}`, `printf %s "{v}"`, `printf %s '{v}'`, `printf %s "$(printf %s {v}; echo .)"`, `printf %s "$(printf %s "{v}"; echo .)"`,
		`x={v}; printf %s "$x"`, `(printf %s {v})`, `: '#' # it's` + "\n" + `printf %s a"{v}"'{v}'`,
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching("[a-z '\"$`\\\\;&|()#~*{}!=\n\té-]{0,12}").Draw(t, "value")
		for i, place := range places {
			task := Task{Shell: place}
			argv := task.Argv(Params{plain("v", value)})
			out, err := exec.Command(argv[0], argv[1:]...).Output()
			if err != nil {
				t.Fatalf("%s with %q: %v in %q", place, value, err, argv)
			}
			want := [...]string{3: value + ".", 4: value + ".", 7: "a" + value + value}[i]
			if want == "" {
				want = value
			}
			if string(out) != want {
				t.Fatalf("%s with %q: got %q, want %q from %q", place, value, out, want, argv)
			}
		}
	})
}

func TestDisplayIsOneLineThatRuns(t *testing.T) {
	bash := gridtest.Program(t, "bash") // reads every form of quotes
	rapid.Check(t, func(t *rapid.T) {
		value := strings.ReplaceAll(rapid.String().Draw(t, "value"), "\x00", "")
		task := Task{Command: []string{"printf", "%s.", value, "{v}"}}
		line := task.Display(Params{plain("v", value), plain("w", value)})
		if !isVisible(line) {
			t.Fatalf("line %q has characters that a terminal would act on", line)
		}
		out, err := exec.Command(bash, "-c", line).Output()
		if want := value + "." + value + ".--w=" + value + "."; err != nil || string(out) != want {
			t.Fatalf("%s: got %q, %v, want %q", line, out, err, want)
		}
	})
}

func TestDisplay(t *testing.T) {
	params := Params{number("lr", "0.1"), plain("s", "a b")}
	for _, c := range []struct {
		task Task
		want string
	}{
		{Task{Command: []string{"python3", "-u", "my train.py"}}, "python3 -u 'my train.py' --lr=0.1 --s='a b'"},
		{Task{Shell: "python3 x.py | tee log"}, "python3 x.py | tee log --lr=0.1 --s='a b'"},
		{Task{Shell: "a\nb"}, `/bin/sh -c $'a\nb --lr=0.1 --s=\'a b\''`},
		{Task{Command: []string{"p", "\x1b[31m"}}, `p $'\x1b[31m' --lr=0.1 --s='a b'`},
	} {
		if got := c.task.Display(params); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

package command

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid/gridtest"
	"mlfnode/grid/space"
)

func number(key, text string) space.Param {
	return space.Param{Key: key, Value: space.Value{Text: text, Kind: space.Number}}
}
func plain(key, text string) space.Param {
	return space.Param{Key: key, Value: space.Value{Text: text}}
}

func TestArgv(t *testing.T) {
	on, off := space.Value{Text: "true", Kind: space.True}, space.Value{Text: "false", Kind: space.False}
	for name, c := range map[string]struct {
		task   Template
		params space.Params
		want   []string
	}{
		"options": {Template{Args: []string{"p", "-u"}},
			space.Params{number("lr", "1e-3"), plain("s", "a b"), {Key: "on", Value: on},
				{Key: "off", Value: off}, plain("e", "")},
			[]string{"p", "-u", "--lr=1e-3", "--s=a b", "--on", "--e="}},
		"constants first, replaced in place": {Template{Args: []string{"p"},
			Constants: space.Params{plain("out", "r"), number("n", "1"), plain("z", "z")}},
			space.Params{number("lr", "1"), number("n", "2")}, []string{"p", "--out=r", "--n=2", "--z=z", "--lr=1"}},
		"a flag replaces a constant": {Template{Args: []string{"p"}, Constants: space.Params{{Key: "v", Value: on}}},
			space.Params{{Key: "v", Value: off}}, []string{"p"}},
		"placeholders": {Template{Args: []string{"p", "{lr}", "x={n}/{lr}", "{other}", "{{lr}}", "{", "}", "{a {n}"},
			Constants: space.Params{number("n", "7")}},
			space.Params{number("lr", "0.1"), number("z", "1")},
			[]string{"p", "0.1", "x=7/0.1", "{other}", "{{lr}}", "{", "}", "{a 7", "--z=1"}},
		"JSON": {Template{Args: []string{"p", `{"a": {lr}, "b": {}}`}}, space.Params{number("lr", "1")},
			[]string{"p", `{"a": 1, "b": {}}`}},
		"escaped only": {Template{Args: []string{"p", "{{lr}}"}}, space.Params{number("lr", "1")},
			[]string{"p", "{{lr}}", "--lr=1"}},
		"flag in place": {Template{Args: []string{"p", "{on}", "{off}"}},
			space.Params{{Key: "on", Value: on}, {Key: "off", Value: off}}, []string{"p", "true", "false"}},
		"no second turn": {Template{Args: []string{"p", "{a}"}}, space.Params{plain("a", "{b}"), plain("b", "x")},
			[]string{"p", "{b}", "--b=x"}},
		"shell": {Template{Shell: "a | p\n", Constants: space.Params{plain("o", "x")}},
			space.Params{plain("s", "it's $x"), {Key: "on", Value: on}},
			[]string{"/bin/sh", "-c", `a | p --o=x --s='it'\''s $x' --on`}},
		"shell placeholders": {Template{Shell: `p {a} "{a}" '{a}' "$(p {a})" ${a} {{a}} {b} # {a}`},
			space.Params{plain("a", `$'"`)},
			[]string{"/bin/sh", "-c", `p '$'\''"' "\$'\"" '$'\''"' "$(p '$'\''"')" ${a} {{a}} {b} # {a}`}},
	} {
		if got := c.task.Argv(c.params); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %s", name, cmp.Diff(c.want, got))
		}
	}
}

// TestShellKeepsValues runs a real shell: a value reaches the program unchanged, wherever its
// placeholder is.
func TestShellKeepsValues(t *testing.T) {
	places := []string{
		`printf %s {v}`, `printf %s "{v}"`, `printf %s '{v}'`, `printf %s "$(printf %s {v}; echo .)"`,
		`printf %s "$(printf %s "{v}"; echo .)"`,
		`x={v}; printf %s "$x"`, `(printf %s {v})`, `: '#' # it's` + "\n" + `printf %s a"{v}"'{v}'`,
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching("[a-z '\"$`\\\\;&|()#~*{}!=\n\té-]{0,12}").Draw(t, "value")
		for i, place := range places {
			task := Template{Shell: place}
			argv := task.Argv(space.Params{plain("v", value)})
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
	bash := gridtest.Program(t, "bash") // bash reads all kinds of quotes
	rapid.Check(t, func(t *rapid.T) {
		value := strings.ReplaceAll(rapid.String().Draw(t, "value"), "\x00", "")
		task := Template{Args: []string{"printf", "%s.", value, "{v}"}}
		line := task.Display(space.Params{plain("v", value), plain("w", value)})
		if !isPrintable(line) {
			t.Fatalf("line %q has characters that a terminal would act on", line)
		}
		out, err := exec.Command(bash, "-c", line).Output()
		if want := value + "." + value + ".--w=" + value + "."; err != nil || string(out) != want {
			t.Fatalf("%s: got %q, %v, want %q", line, out, err, want)
		}
	})
}

func TestDisplay(t *testing.T) {
	params := space.Params{number("lr", "0.1"), plain("s", "a b")}
	for _, c := range []struct {
		task Template
		want string
	}{
		{Template{Args: []string{"python3", "-u", "my train.py"}}, "python3 -u 'my train.py' --lr=0.1 --s='a b'"},
		{Template{Shell: "python3 x.py | tee log"}, "python3 x.py | tee log --lr=0.1 --s='a b'"},
		{Template{Shell: "a\nb"}, `/bin/sh -c $'a\nb --lr=0.1 --s=\'a b\''`},
		{Template{Args: []string{"p", "\x1b[31m"}}, `p $'\x1b[31m' --lr=0.1 --s='a b'`},
	} {
		if got := c.task.Display(params); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// TestListsOfArguments puts lists into commands.
func TestListsOfArguments(t *testing.T) {
	t.Parallel()
	layers := space.Params{{Key: "layers", Value: space.Value{Text: `[64,"a b"]`, Kind: space.List}},
		{Key: "lr", Value: space.Value{Text: "1", Kind: space.Number}}}
	for _, c := range []struct {
		task Template
		want string
	}{
		{Template{Args: []string{"p"}}, `p|--layers|64|a b|--lr=1`},
		{Template{Args: []string{"p", "{layers}", "-x"}}, `p|64|a b|-x|--lr=1`},
		{Template{Args: []string{"p", "layers={layers}"}}, `p|layers=64 a b|--lr=1`},
		{Template{Shell: "p {lr}"}, `/bin/sh|-c|p 1 --layers 64 'a b'`},
		{Template{Shell: "p {layers}"}, `/bin/sh|-c|p '64 a b' --lr=1`},
		{Template{Args: []string{"sh", "-c", "p {layers}"}}, `sh|-c|p '64 a b'|--lr=1`},
	} {
		if got := strings.Join(c.task.Argv(layers), "|"); got != c.want {
			t.Errorf("%v%s: got %s, want %s", c.task.Args, c.task.Shell, got, c.want)
		}
	}
}

// TestRepeatIsNoOption checks that the axis that only repeats trials is left out of the command
// unless the command names it.
func TestRepeatIsNoOption(t *testing.T) {
	t.Parallel()
	p := space.Params{{Key: "lr", Value: space.Value{Text: "1", Kind: space.Number}},
		{Key: space.RepeatKey, Value: space.Value{Text: "3", Kind: space.Number}}}
	for _, c := range []struct {
		task Template
		want string
	}{
		{Template{Args: []string{"p"}, Repeat: true}, "p --lr=1"},
		{Template{Args: []string{"p", "--seed={repeat}"}, Repeat: true}, "p --seed=3 --lr=1"},
		{Template{Shell: "p", Repeat: true}, "/bin/sh -c p --lr=1"},
		{Template{Args: []string{"p"}}, "p --lr=1 --repeat=3"},
	} {
		if got := strings.Join(c.task.Argv(p), " "); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.task, got, c.want)
		}
	}
}

package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid/gridtest"
	"mlfnode/grid/space"
)

// accepted are scripts that print the value of {v}, each at another position, with the output
// before and after it.
var accepted = []struct{ script, before, after string }{
	{`printf %s {v}`, "", ""},
	{`printf %s a{v}b`, "a", "b"},
	{`printf %s "{v}"`, "", ""},
	{`printf %s '{v}'`, "", ""},
	{`printf %s 'it'\''s "{v}"'`, `it's "`, `"`},
	{`printf %s "a'{v}'b"`, "a'", "'b"},
	{`printf %s "$(printf %s {v}; echo .)"`, "", "."},
	{`printf %s "$(printf %s "$(printf %s "{v}"; echo .)")"`, "", "."},
	{`printf %s "$(case a in b) echo no;; a) printf %s {v}; echo .;; esac)"`, "", "."},
	{`x={v}; printf %s "$x"`, "", ""},
	{`x="{v}" y={v}; printf %s "$y"`, "", ""},
	{`export x={v}; printf %s "$x"`, "", ""},
	{`(printf %s {v})`, "", ""},
	{`{ printf %s {v}; }`, "", ""},
	{`f() { printf %s "$1"; }; f {v}`, "", ""},
	{`for x in {v}; do printf %s "$x"; done`, "", ""},
	{`case {v} in '{v}') printf %s {v};; *) printf no;; esac`, "", ""},
	{`case {v} in {v}) printf %s {v};; *) printf no;; esac`, "", ""},
	{`if true; then printf %s {v}; fi # it's {v}`, "", ""},
	{": '#' # it's \" {v} `\nprintf %s {v}", "", ""},
	{`printf %s {v} | cat`, "", ""},
	{`printf %s {v} && : {v}`, "", ""},
	{`printf %s {v}>/dev/stderr 2>&1 >&1 | cat; printf %s {v}>&1`, "", ""},
	{`printf %s \{v}{v}`, "{v}", ""},
	{`set -- a; printf %s "$1"{v}`, "a", ""},
	{`set -- a; printf %s $1{v}`, "a", ""},
	{`printf %s "${HOME:+{v}}"'{v}'`, "\x00", ""},
	{"cat <<EOF\nx={v}\nEOF\n", "x=", "\n"},
	{"cat <<-EOF\n\ta\"{v}'b\n\tEOF\n", `a"`, "'b\n"},
	{"cat <<A; cat <<B\n'{v}\nA\n\"$(printf %s {v}; echo .)\"\nB\n", "\x00", ""},
	{"cat <<EOF\n$(printf '%s|' \"{v}\" {v})\nEOF\n", "\x00", ""},
	{"sed s/a/a/ <<EOF | cat\n{v}.\nEOF\n", "", ".\n"},
	{"x=$(cat <<EOF\n{v}.\nEOF\n); printf %s \"$x\"", "", "."},
	{`sh -c 'printf %s "$1"' sh {v}`, "", ""},
	{`sh -s -- {v} <<'E'
printf %s "$1"
E
`, "", ""},
	{`printf '%s\n' {v} | grep -e '' -e sh -e bash | (x=$(cat; echo .); printf %s "$x")`, "", "\n."},
	{`echo {v} | xargs -0 -I% printf ''; x={v}; sh -c 'printf %s "$1"' sh "$x"`, "", ""},
	{`env A=1 nice printf %s {v}`, "", ""},
	{`printf %s {v} | cat - /dev/null | dd 2> /dev/null`, "", ""},
}

// refused are scripts in which no quoting keeps a value from being read as code, or as a name.
var refused = []string{
	"echo `echo {v}`", "echo \"`echo {v}`\"", "echo `echo \"$(echo {v})\"`",
	`echo ${NOPE:-{v}}`, `echo "${NOPE:-{v}}"`, `echo "${NOPE:-"x {v}"}"`, `echo ${HOME%{v}}`,
	`echo ${HOME/{v}/x}`, `echo ${HOME:{v}}`,
	`echo $(( {v} + 1 ))`, `echo "$(( {v} ))"`, `((x = {v}))`, `let x={v}`, `for ((i = 0; i < {v}; i++)); do :; done`,
	`a[{v}]=1`, `echo ${a[{v}]}`,
	`[[ {v} -eq 1 ]]`, `[[ 1 -lt {v} ]]`, `[[ -v {v} ]]`, `[ -v {v} ]`, `test -v {v}`, `printf -v {v} x`,
	`declare -i x={v}`, `export {v}`, `declare -n x={v}`,
	"cat <<'EOF'\n{v}\nEOF", "cat <<\\EOF\n{v}\nEOF", "cat <<\"EOF\"\n{v}\nEOF", "cat <<EOF\n$(echo '{v}')\nEOF",
	"cat <<{v}\nx\n{v}\n", "cat <<EOF\n`echo {v}`\nEOF",
	"cat <<EOF\n$((1 + {v}))\nEOF", "cat <<EOF\n${NOPE:-{v}}\nEOF",
	`eval echo {v}`, `eval "echo {v}"`, `trap '{v}' EXIT`, `alias x={v}`, `unset {v}`, `read {v}`,
	`sh -c 'echo {v}'`, `bash -ec "echo {v}"`, `exec /bin/sh -c "echo {v}"`, `env A=1 bash -o pipefail -c 'echo {v}'`,
	`nice sh -c 'echo "{v}"'`,
	"sh <<EOF\necho {v}\nEOF", "bash -s <<EOF\necho \"{v}\"\nEOF", "cat <<EOF | sh\necho {v}\nEOF",
	`bash <<< "echo {v}"`, `echo "echo {v}" | sh`, `echo {v} | tee log | (cd .; sudo -n bash -es)`,
	"source /dev/stdin <<EOF\necho {v}\nEOF", `source <(echo "echo {v}")`, `. <(echo {v})`, `bash <(echo {v})`,
	`sh < <(echo {v})`, "ssh host <<EOF\n{v}\nEOF",
	"docker exec -i c sh <<EOF\n{v}\nEOF", "ssh host 'bash -s' <<EOF\n{v}\nEOF", "sbatch <<EOF\n{v}\nEOF",
	"env A=1 dash <<EOF\n{v}\nEOF", "bash - <<EOF\n{v}\nEOF",
	`command eval "echo {v}"`, `builtin eval {v}`, `\eval {v}`, `"eval" {v}`, `'ev'al {v}`, `command trap "{v}" EXIT`,
	`mapfile -C "echo {v}" -c 1 a < /etc/passwd`, `complete -C {v} y`,
	`su -c "echo {v}"`, `su root -c "echo {v}"`, `flock lock -c "echo {v}"`, `script -qc "echo {v}" /dev/null`,
	`env X=1 su -c {v}`, `runuser --command="{v}" root`, `csh -c {v}`, `fish -c 'echo {v}'`,
	"su - <<EOF\n{v}\nEOF", "setpriv sh <<EOF\n{v}\nEOF", `echo {v} | xargs -I% sh -c "echo %"`,
	`xargs -I {} sh -c {} <<< "echo {v}"`, `env -S "sh -c {v}"`, `echo {v} | parallel`,
	`$SHELL -c "echo {v}"`, `"${SHELL:-bash}" -c "{v}"`, `$(command -v bash) -c "echo {v}"`, `ENV={v} sh -i`,
	`export BASH_ENV={v}; bash -c true`, `PS4='{v}' bash -xc true`,
	`x={v}; eval "$x"`, `x={v}; sh -c "echo $x"`, `for x in a {v}; do eval echo $x; done`,
	`rbash -c 'echo {v}'`, `echo $'{v}'`, `echo $"{v}"`, `{v}=1`, `x{v}=1; echo`, `{v}() { :; }; echo`,
	`for {v} in a; do :; done; echo`, `echo "$x{v}"`, `echo $x{v}`, `set -- a; echo "$1{v}"`,
	`echo "{v}`, `echo {v})`, `if {v}`,
}

// nasty draws values that are special to shells.
func nasty() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching("[a-z '\"$`\\\\;&|()#~*?\\[\\]{}!=<>,\n\té-]{0,12}"),
		rapid.SampledFrom([]string{
			"", "if", "1", "-n", "--", "$(touch ran)", "`touch ran`", "a[$(touch ran)]", "'; touch ran; '",
			`"; touch ran; "`, "\nEOF\ntouch ran\n", "EOF", "x\nEOF",
			"a=1", "1,2", "1..3", "*", "~", "~/x", "$HOME", "${HOME}", `\`, `\\`, `a\`, "&1", "2", "# x",
			"a\nb", " a  b ", "\t", "0x10", "%s", "{v}", "mlfvalue0z", "${mlfvalue0z}",
		}))
}

// runScript runs a task's shell command in an empty folder, which must be empty afterwards.
func runScript(t interface{ Fatalf(string, ...any) }, dir string, argv []string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if _, e := os.Stat(filepath.Join(dir, "ran")); e == nil {
		t.Fatalf("a value ran as code in %q", argv)
	}
	return string(out), err
}

// TestPlaceholderIsText runs real shells: a value reaches the program unchanged, wherever its
// placeholder is, and nothing in it is run.
func TestPlaceholderIsText(t *testing.T) {
	bash := gridtest.Program(t, "bash")
	dir := t.TempDir()
	for _, a := range accepted {
		task := Template{Shell: a.script}
		if err := task.Check([]string{"v"}); err != nil && a.before != "\x00" {
			t.Errorf("%s: %v", a.script, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		value := nasty().Draw(t, "value")
		a := rapid.SampledFrom(accepted).Draw(t, "place")
		forms := map[string]Template{
			"shell": {Shell: a.script}, "sh -c": {Args: []string{"sh", "-ec", a.script}},
			"bash": {Args: []string{bash, "-e", "-c", a.script, "bash", "x"}},
		}
		for name, task := range forms {
			out, err := runScript(t, dir, task.Argv(space.Params{plain("v", value)}))
			want := a.before + value + a.after
			if a.before == "\x00" { // more than one value, or rejected
				want = out
			}
			if task.Check([]string{"v"}) == nil && (err != nil || out != want) {
				t.Fatalf("%s of %s with %q: got %q, %v, want %q from %q", name, a.script, value, out, err, want,
					task.Argv(space.Params{plain("v", value)}))
			}
		}
	})
}

// TestPlaceholderRefused checks that a command is rejected if a value could be read as code, and
// that running it nevertheless fails with the reason and runs nothing from the value.
func TestPlaceholderRefused(t *testing.T) {
	dir := t.TempDir()
	for _, text := range refused {
		task := Template{Shell: text}
		err := task.Check([]string{"v"})
		if err == nil {
			t.Errorf("%q: got no error, want a refusal", text)
			continue
		}
		for _, value := range []string{"$(touch ran)", "`touch ran`", "a[$(touch ran)]", "x", "'; touch ran; '"} {
			if _, e := runScript(t, dir, task.Argv(space.Params{plain("v", value)})); e == nil {
				t.Errorf("%q with %q: got success, want a failure with the reason %q", text, value, err)
			}
		}
		if inner := (&Template{Args: []string{"bash", "-c", text}}); inner.Check([]string{"v"}) == nil {
			t.Errorf("bash -c %q: got no error, want a refusal", text)
		}
	}
}

// TestScriptArgument checks that values are quoted in the script of a shell, and in no other
// argument.
func TestScriptArgument(t *testing.T) {
	const value = `a 'b' $(x)`
	const quoted = `'a '\''b'\'' $(x)'`
	for _, c := range []struct{ command, want []string }{
		{[]string{"sh", "-c", "echo {v}"}, []string{"sh", "-c", "echo " + quoted}},
		{[]string{"/bin/bash", "-euo", "pipefail", "-c", "echo {v}", "bash", "{v}"},
			[]string{"/bin/bash", "-euo", "pipefail", "-c", "echo " + quoted, "bash", value}},
		{[]string{"nice", "sh", "-lc", "echo {v}"}, []string{"nice", "sh", "-lc", "echo " + quoted}},
		{[]string{"bash", "--norc", "-c", "echo {v}"}, []string{"bash", "--norc", "-c", "echo " + quoted}},
		{[]string{"sh", "run.sh", "-c", "{v}"}, []string{"sh", "run.sh", "-c", value}},
		{[]string{"python3", "-c", "print('{v}')"}, []string{"python3", "-c", "print('" + value + "')"}},
		{[]string{"prog", "{v}"}, []string{"prog", value}},
	} {
		task := Template{Args: c.command}
		if got := task.Argv(space.Params{plain("v", value)}); strings.Join(got, "\x00") != strings.Join(c.want,
			"\x00") {
			t.Errorf("%q:\ngot  %q\nwant %q", c.command, got, c.want)
		}
	}
}

// TestOptionsBehindLastCommand checks that options go to the last command, and that a script that
// does not end with a command is rejected if there are any options.
func TestOptionsBehindLastCommand(t *testing.T) {
	for _, c := range []struct{ shell, want string }{
		{"a | p", "a | p --k=v"},
		{"a; p > log 2>&1", "a; p --k=v > log 2>&1"},
		{"p # note", "p --k=v # note"},
		{"p <<EOF\nx\nEOF\n", "p --k=v <<EOF\nx\nEOF"},
		{"set -e\na && b || p x", "set -e\na && b || p x --k=v"},
		{"p &", ""}, {"for x in a; do p; done", ""}, {"(p)", ""}, {"{ p; }", ""}, {"x=1", ""},
	} {
		task := Template{Shell: c.shell}
		err := task.Check([]string{"k"})
		if (err == nil) != (c.want != "") {
			t.Errorf("%q: got error %v", c.shell, err)
		}
		if got := task.Argv(space.Params{plain("k", "v")})[2]; c.want != "" && got != c.want {
			t.Errorf("%q: got %q, want %q", c.shell, got, c.want)
		}
		if err := task.Check(nil); err != nil {
			t.Errorf("%q without parameters: got %v, want it to run", c.shell, err)
		}
	}
}

// TestReadAgain checks that, if another shell splits the arguments again, plain values are accepted
// and others are rejected.
func TestReadAgain(t *testing.T) {
	for _, task := range []Template{
		{Shell: "ssh host train {v}"}, {Shell: "ssh host 'train {v}'"}, {Shell: "ssh host train"},
		{Shell: "cd .; exec watch train"}, {Shell: `sbatch --wrap="train {v}"`}, {Shell: "true | parallel train {v}"},
		{Shell: "n={v}; echo $((n * 2))"}, {Shell: "for n in {v}; do [[ $n -gt 1 ]]; done"},
		{Shell: "n={v}; while ((n > 1)); do :; done; train"},
		{Args: []string{"make", "train", "X={v}"}}, {Args: []string{"gmake", "X={v}"}}, {Shell: "make -j2 train X={v}"},
		{Shell: "nice make X={v}"},
		{Args: []string{"bsub", "-K", "train {v}"}}, {Args: []string{"hyperfine", "train {v}"}},
		{Args: []string{"nix-shell", "--run", "train {v}"}},
		{Args: []string{"ssh", "host", "train {v}"}}, {Args: []string{"ssh", "host", "train"}},
		{Args: []string{"env", "A=1", "ssh", "host", "train", "{v}"}},
	} {
		if err := task.Check([]string{"v"}); err != nil {
			t.Errorf("%v: got %v, want it to run with plain values", task, err)
		}
		for _, value := range []string{"0.1", "a,b", "x=/data/a-b_c@d:e"} {
			if argv := task.Argv(space.Params{plain("v", value)}); !strings.Contains(strings.Join(argv, " "), value) ||
				strings.Contains(argv[len(argv)-1], "exit 2") {
				t.Errorf("%v with %q: got %q", task, value, argv)
			}
		}
		for _, value := range []string{"$(touch ran)", "`touch ran`", "a b", "x;touch ran", "*", "'"} {
			if argv := task.Argv(space.Params{plain("v", value)}); !strings.Contains(argv[len(argv)-1], "exit 2") {
				t.Errorf("%v with %q: got %q, want a refusal", task, value, argv)
			}
		}
	}
	for _, command := range [][]string{{"su", "-c", "echo {v}"}, {"sudo", "-n", "su", "root", "-c", "{v}"},
		{"csh", "-c", "echo {v}"}, {"fish", "--command={v}"}, {"flock", "lock", "-c", "{v}"},
		{"script", "-qc", "{v}", "log"}} {
		if err := (&Template{Args: command}).Check([]string{"v"}); err == nil {
			t.Errorf("%q: got no error, want a refusal", command)
		}
	}
	for _, shell := range []string{"eval train", "x=1; command eval train"} {
		if err := (&Template{Shell: shell}).Check([]string{"k"}); err == nil {
			t.Errorf("%q with options: got no error, want a refusal", shell)
		}
	}
	for _, command := range [][]string{{"python3", "script", "-c", "x={v}"}, {"prog", "watch", "{v}"},
		{"python3", "ssh", "{v}"}, {"flock", "lock", "prog", "{v}"}} {
		if argv := (&Template{Args: command}).Argv(space.Params{plain("v",
			"a $b")}); !strings.Contains(argv[len(argv)-1], "a $b") {
			t.Errorf("%q: got %q, want the value as it is", command, argv)
		}
	}
}

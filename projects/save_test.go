package projects

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid/space"
)

func axesOf(t *testing.T, sets ...string) (axes []space.Axis) {
	t.Helper()
	for _, set := range sets {
		a, err := space.ParseSet(set)
		check(t, err)
		axes = append(axes, a)
	}
	return axes
}

// TestSave writes an ad-hoc command with all settings, and reads the same task and axes back.
func TestSave(t *testing.T) {
	dir := tree{"train.py": ":", "data": "dir"}.folder(t)
	t.Chdir(dir)
	axes := axesOf(t, `lr=1e-3,0.10,"true",true,false`, "k=0:9:2", "x={logspace: [-4,-1,4]}", "y={linspace: [0,1,3]}",
		"layers=[[64,\"a b\"],[3]]", `name="two words","",null?,"null","#x"`,
		"zip={a: [1, 1], b: [x, \"2\"]}", "zip={c: [1, 2], d: [x, y]}", "i=!!python/tuple [1, 4]")
	settings := []Setting{
		{"artifact", "result/**"}, {"share", "data/**"}, {"exclude", `name == "two words"`},
		{"metric", "log:out/log.json"}, {"metric", `regex:loss=(?P<loss>\S+)`},
		{"objective", "loss:min"}, {"setup", "make deps # once"}, {"timeout", "1.5s"}, {"retries", "3"},
		{"order", "spread"}, {"cpus", "1"}, {"cpus", "2"}, {"timeout", "2s"}, {"memory", "4GiB"}, {"gpus", "0.5"},
		{"repeat", "3"}, {"sample", "20:7"},
	}
	for _, all := range [][]Setting{nil, settings} {
		adhoc, err := Adhoc([]string{"python3", "-u", "train.py", "--out={lr}", "", "it's #1: \"x\"\n"}, dir)
		check(t, err)
		check(t, adhoc.Apply("", all))
		files, err := adhoc.Save("digits", axes, map[string]string{"HOME": "$x"})
		check(t, err)
		if want := []string{filepath.Join(dir, "project.yaml"),
			filepath.Join(dir, "parameters.yml")}; !cmp.Equal(want, files) {
			t.Errorf("got the files %v, want %v", files, want)
		}
		p, err := Find("digits", t.TempDir())
		check(t, err)
		got, err := p.Task("")
		check(t, err)
		want, err := adhoc.Task("")
		check(t, err)
		want.Axes, want.Task.Env = axes, map[string]string{"HOME": "$$x"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("wrong task (-command +project):\n%s", diff)
		}
		_, err = adhoc.Save("again", axes, nil)
		wantError(t, err, filepath.Join(dir, "project.yaml")+
			" already exists; nothing was changed. Move it away, or add a task to it")
		check(t, os.Remove(filepath.Join(dir, "project.yaml"))) // a parameters.yml with the same content may stay
		files, err = adhoc.Save("again", axes, nil)
		if check(t, err); len(files) != 1 {
			t.Errorf("got the files %v beside a parameters.yml that says the same, want project.yaml alone", files)
		}
		check(t, os.Remove(filepath.Join(dir, "project.yaml")))
		check(t, os.Remove(filepath.Join(dir, "parameters.yml")))
	}
}

// TestSaveElsewhere creates a folder for a command whose folder does not travel, and leaves nothing
// behind if it fails.
func TestSaveElsewhere(t *testing.T) {
	dir := tree{"parameters.yml": ":lr: 1\n", "train.py": ":"}.folder(t)
	t.Chdir(dir)
	echo, err := Adhoc([]string{"echo", "a"}, dir)
	check(t, err)
	files, err := echo.Save("greet", nil, nil)
	if check(t, err); !cmp.Equal(files, []string{"greet/project.yaml"}) {
		t.Errorf("got the files %v, want greet/project.yaml", files)
	}
	_, err = echo.Save("greet", nil, nil)
	wantError(t, err, "the folder greet can't be made: file exists. Choose another name")
	_, err = echo.Save("Greet!", nil, nil)
	wantError(t, err, `"Greet!" is not a valid project name; use lowercase letters, digits and dashes, as in greet`)
	train, err := Adhoc([]string{"python3", "train.py"}, dir)
	check(t, err)
	_, err = train.Save("train", axesOf(t, "lr=2"), nil)
	wantError(t, err, filepath.Join(dir, "parameters.yml")+
		" already exists; nothing was changed. Move it away, or add a task to it")
	_, err = train.Save("train", nil, nil)
	wantError(t, err, "the project would run the parameters of "+filepath.Join(dir, "parameters.yml")+
		", which the command does not. Move that file away, or give it with --parameters")
	_, err = train.Save("train", axesOf(t, "lr=1"), map[string]string{"A-B": "1"})
	wantError(t, err, `"A-B" is not a valid name of an environment variable. Use letters, digits and '_'.`)
	if _, err := os.Stat("project.yaml"); err == nil {
		t.Error("project.yaml was left behind")
	}
	loaded, err := Load("greet")
	check(t, err)
	_, err = loaded.Save("x", nil, nil)
	wantError(t, err, "there is already a project here: --save is for a command after --")
	_, err = train.Save("train", axesOf(t, "zip={a: [1], b: [2]}", "k=1", "zip={c: [1], d: [2]}"), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "a parameters.yml can't say the same as these parameters") {
		t.Errorf("got %v for zips with an axis between", err)
	}
}

// TestSavedParameters reads back the parameters written for arbitrary values.
func TestSavedParameters(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var a space.Axis
		a.Key = rapid.StringMatching(`[a-zA-Z_.]{1,8}|zip|start|null|true`).Draw(rt, "key")
		seen := map[string]bool{}
		for range rapid.IntRange(1, 5).Draw(rt, "n") {
			v := space.Value{Text: rapid.OneOf(rapid.String(),
				rapid.StringMatching(`[-0-9a-z.:#,\[\]{}"' &*!|>%@~\n]{0,6}`),
				rapid.SampledFrom([]string{"true", "null", "~", "1e-3", "0777", "yes", ".inf", "2001-01-01",
					"<<", "=", "-", "? a", "a: b", "a #b"})).Draw(rt, "value")}
			if !seen[v.Text] {
				seen[v.Text] = true
				a.Values = append(a.Values, v)
			}
		}
		if a.Check() != nil {
			return
		}
		text, err := parametersText([]space.Axis{a})
		if err != nil {
			b, _ := json.Marshal(a)
			rt.Fatal(fmt.Sprintf("%s: %v\n%s", b, err, text))
		}
	})
}

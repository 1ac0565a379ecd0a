package projects

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid/problem"
)

// TestVenvInputs checks that the files that requirements name are followed.
func TestVenvInputs(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
		err  string
	}{
		{"numpy\n", []string{"/deps/main.txt"}, ""},
		{"-r base.txt\n-c ../pins.txt # why\n--requirement=base.txt\n",
			[]string{"/deps/main.txt", "/deps/base.txt", "/pins.txt"}, ""},
		{"-rbase.txt\n# -r nothing\n", []string{"/deps/main.txt", "/deps/base.txt"}, ""},
		{"-e .\n", nil, ""},
		{"-e.\n", nil, ""},
		{"--editable=../lib\n", nil, ""},
		{"-c https://example.org/pins.txt\n-rhttps://example.org/x.txt\n-f https://example.org/wheels\n",
			[]string{"/deps/main.txt"}, ""},
		{"-e git+https://example.org/x.git#egg=x\nx @ https://example.org/x.whl\ngit+https://example.org/y\n",
			[]string{"/deps/main.txt"}, ""},
		{"--index-url https://example.org/simple/\nnumpy==1 \\\n    --hash=sha256:aa/bb\n",
			[]string{"/deps/main.txt"}, ""},
		{"-r \\\nbase.txt\n-r 'a[1].txt'\n", []string{"/deps/main.txt", "/deps/base.txt", `/deps/a\[1].txt`}, ""},
		{"--find-links wheels\n", nil, ""},
		{"-f wheels\n", nil, ""},
		{"--find-links /srv/wheels\n", []string{"/deps/main.txt"}, ""},
		{"--find-links=file:wheels\n", nil, ""},
		{"wheels/x.whl\n", nil, ""},
		{"x.whl ; python_version > '3'\n", nil, ""},
		{"lib/\n", nil, ""},
		{"numpy\n./wheels/x.whl\n", nil, ""},
		{"x @ file:///opt/x.whl\n", nil, ""},
		{"-r ../../x.txt\n", nil,
			"the requirements name ../x.txt, which is outside the project's folder. Copy it into the folder"},
		{"-r none.txt\n", nil,
			"the requirements deps/none.txt can't be read: no such file or directory. Name a file in the project's folder"},
	} {
		dir := tree{"deps/main.txt": ":" + c.text,
			"deps/base.txt": ":scipy\n", "deps/a[1].txt": ":", "pins.txt": ":numpy==1\n"}.folder(t)
		got, err := venvInputs(dir, "deps/main.txt")
		if err != nil && err.Error() != c.err || (err == nil) != (c.err == "") || !cmp.Equal(got, c.want) {
			t.Errorf("%q: got %q, %v, want %q, %s", c.text, got, err, c.want, c.err)
		}
	}
}

// TestSetupForms tests the forms of setup and venv.
func TestSetupForms(t *testing.T) {
	for text, want := range map[string]string{
		"setup: make deps":                               "[/bin/sh -c make deps] [] []",
		"setup: [make, deps]":                            "[make deps] [] []",
		"setup: {run: make deps}":                        "[/bin/sh -c make deps] [] []",
		"setup: {run: [make], inputs: [a.txt, deps/**]}": "[make] [a.txt deps/**] []",
		"setup: {run: [make], inputs: a.txt}":            "[make] [a.txt] []",
		"setup: {inputs: [a.txt]}":                       "setup has no run. Write it like {run: make deps, inputs: [requirements.txt]}.",
		"setup: {run: make, inputs: []}":                 "setup.inputs is empty. Name the files, or leave inputs out: then the step reads all files.",
		"setup: {run: make, inputs: [../x]}":             "the pattern \"../x\" of setup.inputs leaves the project. Patterns start at the project's folder: no '..'.",
		"setup: make\n    venv: requirements.txt":        "the task has both setup and venv. Keep one of them; a setup step can make the environment too.",
		"venv: requirements.txt\n    image: python:3.12": "the task train has venv and an image. Take an image that has the packages, or a setup step that installs them.",
		"venv: '*.txt'":                                  `venv is "*.txt", which is not the plain name of a file. Write it like requirements.txt.`,
		"share: [data/**]\n    venv: requirements.txt": fmt.Sprint([]string{"/bin/sh", "-c", venvScript,
			"venv", "requirements.txt"}) + " [/requirements.txt] [data/** .venv]",
	} {
		dir := tree{"requirements.txt": ":numpy\n", "project.yaml": ":tasks:\n  train:\n    command: [\"true\"]\n    " +
			text + "\n"}.folder(t)
		got := ""
		p, err := Load(dir)
		if err == nil {
			d, err := p.Task("")
			check(t, err)
			got = fmt.Sprintf("%v %v %v", d.Task.Setup, d.Task.Inputs, d.Task.Share)
		} else {
			var problems problem.List
			if errors.As(err, &problems) {
				got = problem.Errorf(problems[0].Hint, "%s", problems[0].Msg).Error()
			}
		}
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

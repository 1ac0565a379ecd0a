package projects

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/problem"
)

// venvFolder is the folder of a task's virtual environment within the folder of each trial.
const venvFolder = ".venv"

// venvScript makes a virtual environment from the requirements file $1. Files are copied from uv's
// cache, not linked, since what trials share is protected.
const venvScript = `set -e
if command -v uv >/dev/null 2>&1; then
	echo "making .venv of $1 with uv"
	uv venv --quiet --python python3 .venv
	UV_LINK_MODE=copy uv pip install --compile-bytecode --python .venv/bin/python -r "$1"
else
	echo "making .venv of $1 with pip"
	python3 -m venv .venv || { echo "python3 -m venv does not work on this node: install uv, or the package python3-venv" >&2; exit 1; }
	.venv/bin/python -m pip install --disable-pip-version-check -r "$1"
fi
`

// readVenv reads the requirements file of a virtual environment, which is a setup step that reads
// only this file.
func readVenv(v yamlValue, t *task) {
	if twoSetups(v, t) {
		return
	}
	t.places["venv"] = v
	file := inside(v)
	if file == "" {
		return
	}
	if plain := path.Clean(file); plain != file || strings.HasPrefix(file, "-") ||
		strings.ContainsAny(file, "*?[\\!#") {
		v.report("Write it like requirements.txt.", "%s is %q, which is not the plain name of a file", v.what, file)
		return
	}
	t.requirements = file
	t.Setup, t.Venv = []string{"/bin/sh", "-c", venvScript, "venv", file}, venvFolder
	t.Inputs = []string{"/" + file}
	t.Share = append(slices.Clip(t.Share), venvFolder)
}

// replaceSetup removes the task's setup step or virtual environment.
func (t *task) replaceSetup() {
	delete(t.places, "setup")
	if t.Venv != "" {
		t.Share = slices.DeleteFunc(slices.Clone(t.Share), func(s string) bool { return s == venvFolder })
	}
	t.Setup, t.Inputs, t.Venv, t.requirements = nil, nil, "", ""
}

// VenvInputs returns the inputs of a task's setup step for the files in a folder, as patterns; nil
// stands for all files. The record holds the inputs for the files that were submitted, whereas a
// retry may run other files, in which the requirements of a virtual environment name different
// files.
func VenvInputs(dir string, t *grid.Task) ([]string, error) {
	if t.Venv == "" || len(t.Setup) == 0 {
		return t.Inputs, nil
	}
	file := t.Setup[len(t.Setup)-1]
	if !slices.Contains(t.Inputs, "/"+exactPattern(file)) {
		return t.Inputs, nil
	}
	return venvInputs(dir, file)
}

// exactPattern returns the pattern that matches exactly one file.
func exactPattern(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

// venvInputs returns, as patterns, the files that a virtual environment is made from: the
// requirements, and the files that these name. It returns nil, for all files, if they name
// something else in the project: the project itself, a package or a folder of packages.
func venvInputs(dir, file string) ([]string, error) {
	var names, files []string
	continued := strings.NewReplacer("\\\r\n", " ", "\\\n", " ")
	for open := []string{file}; len(open) > 0; {
		name := open[0]
		open = open[1:]
		if slices.Contains(names, name) {
			continue
		}
		if !grid.IsRelative(name) {
			return nil, fmt.Errorf("the requirements name %s, which is outside the project's folder. Copy it "+
				"into the folder", name)
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("the requirements %s can't be read: %w. Name a file in the project's folder", name,
				problem.WithoutPath(err))
		}
		names, files = append(names, name), append(files, "/"+exactPattern(name))
		for line := range strings.Lines(continued.Replace(string(text))) {
			line, _, _ = strings.Cut(" "+strings.TrimSpace(line), " #")
			option, value := requirement(strings.TrimSpace(line))
			switch local := !strings.Contains(value, "://") || strings.Contains(value, "file:"); {
			case value == "" || !local || option != "-r" && path.IsAbs(value): // nothing in the project
			case strings.Contains(value, "file:"), option != "-r":
				return nil, nil
			default:
				open = append(open, path.Join(path.Dir(name), value))
			}
		}
	}
	return files, nil
}

// requirement parses a line of requirements. It returns what the line names, if that may be a path
// or a URL, and the option before it; the option is -r for any that names another requirements
// file.
func requirement(line string) (option, value string) {
	if !strings.HasPrefix(line, "-") {
		first, _, _ := strings.Cut(line, " ")
		_, url, found := strings.Cut(line, "@")
		isPath := strings.ContainsAny(first, "/\\") || strings.HasPrefix(first, ".") || strings.Contains(line, "file:")
		switch {
		case found && strings.Contains(url, ":"):
			return "", strings.TrimSpace(url)
		case isPath || slices.Contains([]string{".whl", ".zip", ".gz", ".tgz", ".bz2", ".xz"}, filepath.Ext(first)):
			return "", line
		}
		return "", ""
	}
	for _, o := range []struct{ text, means string }{
		{"--requirement", "-r"}, {"--constraint", "-r"}, {"--editable", "-e"}, {"--find-links", "-f"},
		{"-r", "-r"}, {"-c", "-r"}, {"-e", "-e"}, {"-f", "-f"},
	} {
		if value, found := strings.CutPrefix(line, o.text); found {
			return o.means, strings.Trim(value, " \t=\"'")
		}
	}
	return "", ""
}

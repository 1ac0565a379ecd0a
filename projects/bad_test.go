package projects

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// badProject is a project.yaml of testdata/bad.txt and the message that it is refused with.
type badProject struct{ name, yaml, want string }

// badProjects reads testdata/bad.txt: `== name` is followed by the lines of a file, then by `-> `
// and each line of the message.
func badProjects(t testing.TB) (all []badProject) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "bad.txt"))
	check(t, err)
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "== "); ok {
			all = append(all, badProject{name: strings.TrimSpace(name)})
		} else if said, ok := strings.CutPrefix(line, "-> "); ok {
			all[len(all)-1].want += "project.yaml:" + said
		} else {
			all[len(all)-1].yaml += line
		}
	}
	return all
}

// loadText loads a project.yaml with this text. The error's message does not name the folder.
func loadText(t testing.TB, text string) (*Project, string) {
	t.Helper()
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "project.yaml"), []byte(text), 0o600))
	p, err := Load(dir)
	if err != nil {
		return nil, strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
	}
	return p, ""
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range badProjects(t) {
		t.Run(c.name, func(t *testing.T) {
			if _, got := loadText(t, c.yaml); got != strings.TrimSuffix(c.want, "\n") {
				t.Errorf("wrong message\ngot  %s\nwant %s", got, c.want)
			}
		})
	}
}

// bomb returns a small file whose aliases expand to tasks × values texts.
func bomb(tasks, values int) string {
	var b strings.Builder
	b.WriteString("tasks:\n  t0: {command: [a], artifacts: &bomb [" + strings.Repeat("x,", values) + "x]}\n")
	for i := 1; i <= tasks; i++ {
		b.WriteString("  t" + strconv.Itoa(i) + ": {command: [a], artifacts: *bomb}\n")
	}
	return b.String()
}

// adviceTooLong is the hint on a file that is too long.
const adviceTooLong = "Write long rows of numbers as an interval, like {start: 0, end: 1000000}. Or keep the values in a file of the project and " +
	"sweep over its lines: line=1:40001 for 40,000 of them, with $(sed -n {line}p FILE) in a command of sh -c."

func TestLoadRefusesUnreadable(t *testing.T) {
	twenty := ""
	for i := 1; i <= 20; i++ {
		twenty += "project.yaml:" + strconv.Itoa(i) + `:1: the project has the unknown field "` +
			strings.Repeat("z", i) +
			"\". Known here: default, name, tasks.\n"
	}
	many := ""
	for i := 1; i <= 500; i++ {
		many += strings.Repeat("z", i) + ": 1\n"
	}
	for _, c := range []badProject{
		{"not UTF-8", "name: \"a\xff\"\n", "project.yaml:1:9: the file is not valid UTF-8. Save it as UTF-8."},
		{"program", "\x7fELF\x02\x01\x01\x00",
			"project.yaml:1:1: this is not valid YAML: control characters are not allowed. " +
				"Check this line and those before it for a missing colon, quote, bracket or space."},
		{"10 MB", strings.Repeat("# comment\n", 1<<20),
			"project.yaml:1:1: the file has more than 4 MiB. " + adviceTooLong},
		{"deep", "tasks: " + strings.Repeat("[", 101),
			"project.yaml:1:108: lists and maps are nested more than 100 deep. Write it flat."},
		{"alias bomb", bomb(200, 1000),
			"project.yaml:102:35: the file's aliases stand for more than 100000 values. Write the values out where they are used."},
		{"many problems", many, twenty + "There may be more problems after these."},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := loadText(t, c.yaml); got != c.want {
				t.Errorf("wrong message\ngot  %.3000s\nwant %s", got, c.want)
			}
		})
	}
}

package projects

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// named returns a project.yaml that only has a name.
func named(name string) string { return ":name: " + name + "\n" }

func TestFind(t *testing.T) {
	t.Chdir(tree{
		"here/project.yaml": named("here"), "projects/here/project.yaml": named("shadowed"),
		"projects/there/project.yaml":   named("there"),
		"projects/deep/er/project.yaml": named("deeper"),
		"chainer/notes":                 ":", "projects/bowcnn/project.yaml": named("my-bowcnn"),
		"twice/notes": ":", "projects/twice/project.yaml": named("twice"), "link": "-> here",
		"project.yaml": named("dot"),
	}.folder(t))
	cache := t.TempDir()
	abs, err := filepath.Abs("here")
	check(t, err)
	for _, c := range []struct{ name, want, dir string }{
		{"here", "here", "here"},
		{"./here", "here", "./here"},
		{"here/", "here", "here/"},
		{abs, "here", abs},
		{"link", "here", "link"},
		{".", "dot", "."},
		{"there", "there", "projects/there"},
		{"projects/deep/er", "deeper", "projects/deep/er"},
		{"twice", "twice", "projects/twice"},
		{"bowcnn", "my-bowcnn", "projects/bowcnn"},
	} {
		p, err := Find(c.name, cache)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if p.Name != c.want || p.Dir != c.dir {
			t.Errorf("%s: got %s in %s, want %s in %s", c.name, p.Name, p.Dir, c.want, c.dir)
		}
	}
	if got := readTree(t, cache); len(got) != 0 {
		t.Errorf("nothing was needed from the examples, but the cache has %v", got)
	}
	p, err := Find("chainer", cache) // a folder of this name that has no project
	check(t, err)
	if p.Name != "chainer" || filepath.Dir(p.Dir) != cache {
		t.Errorf("got %s in %s, want the example under %s", p.Name, p.Dir, cache)
	}
}

func TestFindNothing(t *testing.T) {
	dir := tree{"main.py": ":", "bare/notes": ":", "a/b": "dir"}.folder(t)
	t.Chdir(dir)
	const example = "\ntasks:\n  train:\n    command: [\"python3\", \"-u\", \"main.py\"]"
	for _, c := range []struct{ name, want string }{
		{"", "no project is named. Give a folder, or one of the examples chainer, bowcnn"},
		{"nets", "there is no project nets: no folder nets or projects/nets, and no example of this name. The examples are chainer and bowcnn; mlfnode new nets makes a project"},
		{"./My Nets", "there is no project ./My Nets: no folder ./My Nets, and no example of this name. The examples are chainer and bowcnn; mlfnode new my-nets makes a project"},
		{"main.py",
			"main.py is a file, not a project's folder. To run one command write mlfnode sweep -- python3 main.py"},
		{"bare", "bare has no project.yaml. Write one like this:\nname: bare" + example},
		{"a/b", "a/b has no project.yaml. Write one like this:\nname: b" + example},
	} {
		_, err := Find(c.name, t.TempDir())
		wantError(t, err, c.want)
	}
}

func TestFindExamples(t *testing.T) {
	t.Chdir(t.TempDir())
	cache := filepath.Join(t.TempDir(), "not", "yet")
	for _, name := range examples() {
		p, err := Find(name, cache)
		check(t, err)
		if p.Name != name {
			t.Errorf("got the name %s, want %s", p.Name, name)
		}
		for _, task := range p.Tasks() {
			if _, err := p.Task(task); err != nil {
				t.Errorf("%s %s: %v", name, task, err)
			}
		}
		if _, digest := pack(t, p.Dir); digest == "" {
			t.Errorf("%s has no bundle", name)
		}
		again, err := Find(name, cache)
		check(t, err)
		if again.Dir != p.Dir {
			t.Errorf("second time: got %s, want %s", again.Dir, p.Dir)
		}
	}
	for name := range readTree(t, cache) {
		if strings.HasPrefix(name, ".") || strings.Contains(name, "__pycache__") {
			t.Errorf("the cache has %s, want whole examples only", name)
		}
	}
}

func TestNew(t *testing.T) {
	parent := t.TempDir()
	dir, err := New("my-nets", parent)
	check(t, err)
	if want := filepath.Join(parent, "my-nets"); dir != want {
		t.Errorf("got %s, want %s", dir, want)
	}
	p, err := Load(dir)
	check(t, err)
	d, err := p.Task("")
	check(t, err)
	if p.Name != "my-nets" || d.Task.Name != "train" || len(d.Axes) != 3 {
		t.Errorf("got project %s, task %s, %d axes, want my-nets, train, 3", p.Name, d.Task.Name, len(d.Axes))
	}
	got := readTree(t, dir)
	for name, text := range got {
		if name != SchemaFile && strings.Contains(text, "NAME") {
			t.Errorf("%s still has the placeholder", name)
		}
	}
	want := []string{".mlfignore", SchemaFile, "README.md", "main.py", "parameters.yml", "project.yaml", "test_main.py"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("wrong files (-want +got):\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	parent := tree{"taken/notes": ":mine", "file": ":"}.folder(t)
	before := readTree(t, parent)
	for _, c := range []struct{ name, parent, want string }{
		{"", parent, `"" is not a valid project name; use lowercase letters, digits and dashes, as in project`},
		{"My Nets", parent,
			`"My Nets" is not a valid project name; use lowercase letters, digits and dashes, as in my-nets`},
		{"..", parent, `".." is not a valid project name; use lowercase letters, digits and dashes, as in project`},
		{"a/b", parent, `"a/b" is not a valid project name; use lowercase letters, digits and dashes, as in a-b`},
		{"taken", parent, filepath.Join(parent, "taken") + " already exists; choose another name"},
		{"file", parent, filepath.Join(parent, "file") + " already exists; choose another name"},
		{"new", filepath.Join(parent, "none"), "there is no folder " + filepath.Join(parent, "none") +
			" to make the project in"},
		{"new", filepath.Join(parent, "file"), "there is no folder " + filepath.Join(parent, "file") +
			" to make the project in"},
	} {
		_, err := New(c.name, c.parent)
		wantError(t, err, c.want)
	}
	if diff := cmp.Diff(before, readTree(t, parent)); diff != "" {
		t.Errorf("a refused project left something (-before +after):\n%s", diff)
	}
}

func TestNewUnwritable(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip(err)
	}
	_, err := New("a", "/proc/self") // nothing can be created there
	wantError(t, err, "the folder /proc/self/a can't be made: no such file or directory")
}

package provision

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
)

// TestPurgeLeavesWhatIsNotOurs has files of the user at every place in a root folder that a node
// uses, too.
func TestPurgeLeavesWhatIsNotOurs(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	p := newPushed(t)
	p.root = filepath.Join(home, "ML")
	place := protocol.Layout{Root: p.root}
	write := func(name string) {
		t.Helper()
		file := filepath.Join(p.root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mine := []string{"thesis.tex", "bin/mytool", "bin/.profile", "projects/mnist/results.csv", "projects/.mnist.notes",
		"projects/chainer/result/log",
		"projects/chainer/same.py", "projects/chainer/data/mine.txt", "node.log.2", "statement.pdf", "projects/[x]/a"}
	for _, name := range mine {
		write(name)
	}
	p.add("same.py", "projects/chainer/same.py", false) // it lay there before, as it is pushed
	p.add("data/a.txt", "1", false)
	p.add("train.py", "2", true)
	p.add("sub/dir/b.txt", "3", false)
	p.push(t, nil)
	p.push(t, p.tar(t, "data/a.txt", "train.py", "sub/dir/b.txt"))
	for _, name := range []string{"bin/mlfnode", "bin/.digest", "bin/.ship-77", "node.yaml", "node.log", "node.log.1",
		"up.json", "supervisor.lock",
		"state/token", "state/trust/ca.key", "state/jetstream/x/y"} {
		write(name)
	}
	o := &operation{installation: installation{Layout: place}}
	if err := o.purge(); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(p.root, path)
			left = append(left, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(mine)
	slices.Sort(left)
	if !slices.Equal(left, mine) {
		t.Errorf("left %q\nwant %q", left, mine)
	}
	for _, gone := range []string{"state", "projects/chainer/sub"} {
		if _, err := os.Stat(filepath.Join(p.root, gone)); err == nil {
			t.Errorf("the empty folder %s is left", gone)
		}
	}
}

// TestPurgeRemovesAll has nothing of the user there.
func TestPurgeRemovesAll(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	p := newPushed(t)
	p.root = filepath.Join(home, "ML")
	p.add("sub/train.py", "2", true)
	p.push(t, nil)
	p.push(t, p.tar(t, "sub/train.py"))
	o := &operation{installation: installation{Layout: protocol.Layout{Root: p.root}}}
	if err := os.MkdirAll(o.State(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.State(), "token"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.purge(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.root); err == nil {
		t.Error("the root folder is left")
	}
}

// TestPushDoesNotRemoveWhatItDidNotBring pushes less after more, where one of the files was there
// before.
func TestPushDoesNotRemoveWhatItDidNotBring(t *testing.T) {
	p := newPushed(t)
	p.add("a.txt", "mine", false)
	if err := os.MkdirAll(p.path(""), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("a.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.add("b.txt", "2", false)
	if r := p.push(t, nil); !slices.Equal(r.Missing, []string{"b.txt"}) {
		t.Fatalf("got missing %q, want b.txt", r.Missing)
	}
	p.push(t, p.tar(t, "b.txt"))
	delete(p.files, "a.txt")
	delete(p.files, "b.txt")
	p.push(t, nil)
	if _, err := os.Stat(p.path("a.txt")); err != nil {
		t.Error("a file that lay there before was removed")
	}
	if _, err := os.Stat(p.path("b.txt")); err == nil {
		t.Error("a file that was pushed is left")
	}
	var names []string
	b, _ := os.ReadFile(pushedList(protocol.Layout{Root: p.root}, "chainer"))
	if err := json.Unmarshal(b, &names); len(names) != 0 || err != nil && len(b) > 0 && string(b) != "null" {
		t.Errorf("the list has %q", b)
	}
}

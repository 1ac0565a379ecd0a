package provision

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
)

// testPush is a project on its way.
type testPush struct {
	root  string
	files map[string]protocol.File
	texts map[string]string
}

func newPushed(t *testing.T) *testPush {
	return &testPush{root: filepath.Join(t.TempDir(), "mlfnode"), files: map[string]protocol.File{},
		texts: map[string]string{}}
}

func (p *testPush) add(name, text string, exec bool) {
	p.files[name], p.texts[name] = protocol.File{SHA256: digestOf([]byte(text)), Exec: exec}, text
}

// tar packs files.
func (p *testPush) tar(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(p.texts[name])), Typeflag: tar.TypeReg}
		if link := p.files[name].Link; link != "" {
			h = &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: link}
		}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write([]byte(p.texts[name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// push sends the request, with a tar if there is one.
func (p *testPush) push(t *testing.T, packed []byte) protocol.Response {
	t.Helper()
	line, err := json.Marshal(protocol.Request{
		Version: protocol.Version, Root: p.root,
		Push: &protocol.Push{Project: "chainer", Files: p.files, Tar: packed != nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	in := bytes.NewReader(append(append(line, '\n'), packed...))
	if err := (Provisioner{}).Serve(context.Background(), protocol.ActionReceive, in, &out); err != nil {
		t.Fatal(err)
	}
	var r protocol.Response
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (p *testPush) path(name string) string {
	return filepath.Join(protocol.Layout{Root: p.root}.Projects(), "chainer", name)
}

func TestReceive(t *testing.T) {
	p := newPushed(t)
	p.add("train.py", "print(1)\n", false)
	p.add("bin/run", "#!/bin/sh\n", true)
	p.files["latest"] = protocol.File{Link: "bin/run"}
	all := []string{"bin/run", "latest", "train.py"}
	if r := p.push(t, nil); r.Problem != nil || !slices.Equal(r.Missing, all) {
		t.Fatalf("got missing %v (%v), want %v", r.Missing, r.Problem, all)
	}
	r := p.push(t, p.tar(t, all...))
	if r.Problem != nil || len(r.Missing) > 0 {
		t.Fatalf("got missing %v (%v), want none", r.Missing, r.Problem)
	}
	wantDone(t, r, "pushed 3 files")
	if info, err := os.Stat(p.path("latest")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v behind the link, want an executable file", info, err)
	}
	wantDone(t, p.push(t, nil))

	p.add("train.py", "print(2)\n", false)
	if err := os.WriteFile(p.path("notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	delete(p.files, "bin/run")
	delete(p.files, "latest")
	r = p.push(t, nil)
	wantDone(t, r, "removed 2 files")
	if !slices.Equal(r.Missing, []string{"train.py"}) {
		t.Errorf("got missing %v, want the one that was changed", r.Missing)
	}
	if _, err := os.Stat(p.path("bin")); !os.IsNotExist(err) {
		t.Errorf("got %v for a folder that is empty now, want it gone", err)
	}
	if _, err := os.Stat(p.path("notes")); err != nil {
		t.Errorf("got %v for a file that nobody pushed, want it left alone", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	changed := func(p *testPush) { p.add("a", "one", false); p.texts["a"] = "two" }
	tests := []struct {
		name, want string
		make       func(*testPush)
		packed     []string
	}{
		{"up", "leads out of the project", func(p *testPush) { p.add("../a", "", false) }, []string{"../a"}},
		{"absolute", "leads out of the project", func(p *testPush) { p.add("/tmp/a", "", false) }, []string{"/tmp/a"}},
		{"link", "leads out of the project", func(p *testPush) { p.files["l"] = protocol.File{Link: "../../x"} },
			[]string{"l"}},
		{"absolute link", "leads out of the project", func(p *testPush) { p.files["l"] = protocol.File{Link: "/etc"} },
			[]string{"l"}},
		{"unnamed", "does not name", func(*testPush) {}, []string{"b"}},
		{"changed", "changed in transit", changed, []string{"a"}},
	}
	for _, tt := range tests {
		p := newPushed(t)
		tt.make(p)
		r := p.push(t, p.tar(t, tt.packed...))
		if r.Problem == nil || !strings.Contains(r.Problem.Cause, tt.want) {
			t.Errorf("%s: got %+v, want %q", tt.name, r.Problem, tt.want)
		}
		if _, err := os.Lstat(p.path(tt.packed[0])); err == nil {
			t.Errorf("%s: %s is there", tt.name, tt.packed[0])
		}
	}
}

// TestReceiveThroughLinks has a link that lies in the project already point out of it.
func TestReceiveThroughLinks(t *testing.T) {
	p := newPushed(t)
	p.add("data/a", "one", false)
	outside := t.TempDir()
	if err := os.MkdirAll(p.path(""), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, p.path("data")); err != nil {
		t.Fatal(err)
	}
	if r := p.push(t, p.tar(t, "data/a")); r.Problem == nil {
		t.Errorf("got no problem, want one")
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("got %v outside of the project, want nothing", left)
	}
}

func TestReceiveCutOff(t *testing.T) {
	p := newPushed(t)
	p.add("a", strings.Repeat("a", 4096), false)
	p.add("b", strings.Repeat("b", 4096), false)
	packed := p.tar(t, "a", "b")
	if r := p.push(t, packed[:512+4096+512+100]); r.Problem == nil {
		t.Errorf("got no problem for half a tar, want one")
	}
	if r := p.push(t, nil); !slices.Equal(r.Missing, []string{"b"}) {
		t.Errorf("got missing %v, want the file that was cut off", r.Missing)
	}
	if r := p.push(t, p.tar(t, "b")); r.Problem != nil || len(r.Missing) > 0 {
		t.Errorf("got missing %v (%v), want none", r.Missing, r.Problem)
	}
}

func TestPurge(t *testing.T) {
	order := func(root string) protocol.Response {
		o := &operation{installation: installation{Layout: protocol.Layout{Root: root}},
			request: protocol.Request{Purge: true}}
		if err := o.stop(context.Background()); err != nil {
			o.response.Problem = problemOf(err)
		}
		return o.response
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	mark := func(root string) string {
		p := protocol.Layout{Root: root}
		if err := os.MkdirAll(p.State(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.State(), "token"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return root
	}
	if r := order(mark(home)); r.Problem == nil || !strings.Contains(r.Problem.Cause, "home folder") {
		t.Errorf("got %+v for the home folder, want a problem", r.Problem)
	}
	if r := order(filepath.Join(home, "none")); r.Problem != nil || len(r.Done) > 0 {
		t.Errorf("got %+v where nothing is, want nothing done", r)
	}
	foreign := filepath.Join(home, "work")
	if err := os.MkdirAll(filepath.Join(foreign, "projects", "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	order(foreign)
	if _, err := os.Stat(filepath.Join(foreign, "projects", "mine")); err != nil {
		t.Errorf("got %v for a folder that is not a node's, want it left alone", err)
	}
	mixed := mark(filepath.Join(home, "mixed"))
	if err := os.WriteFile(filepath.Join(mixed, "thesis"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := order(mixed); len(r.Notes) != 1 || !slices.Equal(r.Done, []string{"removed the node from " + mixed}) {
		t.Errorf("got %q with notes %q, want the node removed, and a note about what was kept", r.Done, r.Notes)
	}
	if left, _ := os.ReadDir(mixed); len(left) != 1 {
		t.Errorf("got %v, want what is not the node's alone", left)
	}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

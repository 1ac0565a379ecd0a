package bootstrap

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/cluster/bootstrap/shell"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// answer is what the probe prints on a machine that is fit, with some lines replaced or, with an
// empty value, left out.
func answer(changes ...string) string {
	said := []string{"os=Linux", "arch=x86_64", "user=ada", "uid=1000", "host=gpu1", "home=/home/ada",
		"time=1795608001", "glibc=2.36",
		"ssh=10.0.0.9 51000 10.0.0.5 22", "there=/home/ada", "free=104857600", "writable=yes", "gzip=/usr/bin/gzip",
		"end=yes"}
	for _, c := range changes {
		key, _, _ := strings.Cut(c, "=")
		for i := range said {
			if strings.HasPrefix(said[i], key+"=") {
				said[i] = ""
			}
		}
		if !strings.HasSuffix(c, "=") {
			said = append([]string{c}, said...)
		}
	}
	return strings.Join(said, "\n") + "\n"
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name    string
		changes []string
		cause   string
		cure    string
		notes   []string
	}{
		{name: "fit"},
		{name: "arm", changes: []string{"arch=aarch64"}},
		{name: "no word of room", changes: []string{"free="}},
		{name: "slow clock", changes: []string{"time=1795607970"},
			notes: []string{"its clock is 30s behind this machine's"}},
		{name: "a Mac", changes: []string{"os=Darwin", "arch=arm64"}, cause: "it runs Darwin, and nodes need Linux",
			cure: "leave it out of -a; commands work there with: mlfnode token use"},
		{name: "an old processor", changes: []string{"arch=i686"},
			cause: "its processor is i686, and there are programs for x86_64 and aarch64 only",
			cure:  "leave it out of -a"},
		{name: "a read-only home", changes: []string{"writable=", "refused=Read-only file system"},
			cause: "ada can't write to /home/ada: Read-only file system",
			cure:  "make the folder writable, or choose another one below the home folder with -r"},
		{name: "a full disk", changes: []string{"writable=", "refused=No space left on device"},
			cause: "the disk of /home/ada is full",
			cure:  "make room on it (df -h /home/ada), or choose a folder on another one with -r"},
		{name: "little room", changes: []string{"free=102400"},
			cause: "only 100 MiB are free on the disk of /home/ada, and a node needs 512 MiB",
			cure:  "make room on it (df -h /home/ada), or choose a folder on another one with -r"},
		{name: "a wrong clock", changes: []string{"time=1795611600"},
			cause: "its clock is 1h0m0s ahead of this machine's",
			cure:  "set it, as with: sudo timedatectl set-ntp true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := parseFacts(answer(tt.changes...), time.Unix(1795608000, 0))
			if f == nil {
				t.Fatal("got no facts")
			}
			p, notes := f.check()
			if p == nil {
				p = &shell.Problem{}
			}
			if p.Cause != tt.cause || p.Cure != tt.cure {
				t.Errorf("got  %q, %q\nwant %q, %q", p.Cause, p.Cure, tt.cause, tt.cure)
			}
			if diff := cmp.Diff(tt.notes, notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHalfAnAnswer(t *testing.T) {
	for _, text := range []string{"", "Welcome!\n", answer("end="), answer("home="), answer("home=ada")} {
		if f := parseFacts(text, noon); f != nil {
			t.Errorf("%q: got facts %+v, want none", text, f)
		}
	}
}

// TestExamineThisMachine runs the probe for real, in a home folder of its own.
func TestExamineThisMachine(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	f, err := runProbe(context.Background(), shell.Local{}, "my cluster's")
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := f.check(); p != nil && f.Free >= minFree {
		t.Errorf("got problem %v, want none", p)
	}
	if f.Home != home || f.Layout.Root != filepath.Join(home, "my cluster's") || f.existingDir != home ||
		f.Digest != "" || f.Ahead.Abs() > 2*time.Second {
		t.Errorf("got %+v, want the home %s and no program", f, home)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("the probe has left %v, %v", left, err)
	}
}

// TestShip puts a program in its place on this machine, with and without gzip there, and leaves
// nothing beside it.
func TestShip(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	builds := NewBuilds(self)
	for _, gzip := range []bool{true, false} {
		f, err := runProbe(context.Background(), shell.Local{}, "ML "+map[bool]string{true: "a", false: "b"}[gzip])
		if err != nil {
			t.Fatal(err)
		}
		f.Gzip = f.Gzip && gzip
		b, err := builds.fitting(f)
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{Host: &Host{Name: "here"}, shell: shell.Local{}, facts: f}
		for _, want := range []bool{true, false} {
			if sent, err := m.install(context.Background(), b); err != nil || (sent != "") != want {
				t.Errorf("ship: got %v, %v, want %v", sent, err, want)
			}
		}
		again, err := runProbe(context.Background(), shell.Local{}, filepath.Base(f.Layout.Root))
		if err != nil || again.Digest != b.digest {
			t.Errorf("got digest %q, %v, want %q", again.Digest, err, b.digest)
		}
		if left, _ := os.ReadDir(filepath.Dir(f.Layout.Program())); len(left) != 2 {
			t.Errorf("got %v, want the program and its digest alone", left)
		}
		if err := os.WriteFile(f.Layout.Program(), []byte("damaged"), 0o755); err != nil {
			t.Fatal(err)
		}
		again, err = runProbe(context.Background(), shell.Local{}, filepath.Base(f.Layout.Root))
		if err != nil || len(again.Digest) != len(b.digest) || again.Digest == b.digest {
			t.Errorf("got digest %q, %v of a damaged program, want its own", again.Digest, err)
		}
	}
}

// TestShipDamaged holds that a program that arrives damaged takes nobody's place.
func TestShipDamaged(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	f, err := runProbe(context.Background(), shell.Local{}, "ML")
	if err != nil {
		t.Fatal(err)
	}
	f.Gzip = false
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBuilds(self).fitting(f)
	if err != nil {
		t.Fatal(err)
	}
	wrong := *b
	wrong.digest = strings.Repeat("0", 64)
	m := &machine{Host: &Host{Name: "here"}, shell: shell.Local{}, facts: f}
	_, err = m.install(context.Background(), &wrong)
	want := "the program can't be put into " + f.Layout.Root + ": the program arrived damaged"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if left, _ := os.ReadDir(filepath.Dir(f.Layout.Program())); len(left) != 0 {
		t.Errorf("got %v, want nothing left", left)
	}
}

func TestNoBuild(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"aarch64", "x86_64"} {
		f := &Facts{OS: "Linux", Arch: arch, Glibc: "2.36"}
		_, err := NewBuilds(filepath.Join(t.TempDir(), filepath.Base(self))).fitting(f)
		if err == nil || !strings.HasPrefix(err.Error(), "there is no mlfnode here for ") {
			t.Errorf("%s: got %v, want that there is no program", arch, err)
		}
	}
}

func TestGlibc(t *testing.T) {
	tests := []struct {
		needed, there string
		want          bool
	}{{"", "", true}, {"2.34", "", false}, {"2.34", "2.34", true}, {"2.34", "2.4", false}, {"2.4", "2.34",
		true}, {"2.34", "2.34.1", true}, {"2.3.4", "2.3", false}, {"3", "2.40", false}}
	for _, tt := range tests {
		if got := glibcSatisfies(tt.needed, tt.there); got != tt.want {
			t.Errorf("needs %q, there is %q: got %v, want %v", tt.needed, tt.there, got, tt.want)
		}
	}
}

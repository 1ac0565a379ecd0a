package procfs

import (
	"os"
	"slices"
	"testing"
)

func TestParseStat(t *testing.T) {
	const rest = " 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9000 100"
	for _, c := range []struct {
		text string
		want Stat
		ok   bool
	}{
		{"7 (sh) S 1 7 6" + rest, Stat{PID: 7, Parent: 1, Session: 6, Start: 4711}, true},
		{"7 (a) Z 1 (b) c) R 2 7 6" + rest, Stat{PID: 7, Parent: 2, Session: 6, Start: 4711}, true},
		{"7 (sh) Z 1 7 6" + rest, Stat{PID: 7, Parent: 1, Session: 6, Dead: true, Start: 4711}, true},
		{"7 (sh) S 1 7 6 0 -1", Stat{}, false},
		{"", Stat{}, false},
	} {
		got, ok := parseStat(7, []byte(c.text))
		if ok != c.ok || (ok && got != c.want) {
			t.Errorf("parseStat(%q): got %+v, %v; want %+v, %v", c.text, got, ok, c.want, c.ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (sh) S 1 7 6 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9000 100"))
	f.Add([]byte(")) ("))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(7, b); ok && s.PID != 7 {
			t.Errorf("parseStat(%q): got pid %d", b, s.PID)
		}
	})
}

// TestMatchEnviron checks matchEnviron on our own process.
func TestMatchEnviron(t *testing.T) {
	pid := os.Getpid()
	if got := MatchEnviron(pid, "NO_SUCH_VARIABLE=1"); got != EnvironWithout {
		t.Errorf("an absent variable: got %d, want %d", got, EnvironWithout)
	}
	if path, ok := os.LookupEnv("PATH"); ok {
		if got := MatchEnviron(pid, "PATH="+path); got != EnvironWith {
			t.Errorf("a variable of ours: got %d, want %d", got, EnvironWith)
		}
	}
	if got := MatchEnviron(1<<30, "A=1"); got != EnvironUnknown {
		t.Errorf("no process: got %d, want %d", got, EnvironUnknown)
	}
}

func TestArgsAndOwner(t *testing.T) {
	pid := os.Getpid()
	if got := Args(pid); !slices.Equal(got, os.Args) {
		t.Errorf("got arguments %q, want %q", got, os.Args)
	}
	if got := Args(1 << 30); got != nil {
		t.Errorf("no process: got arguments %q", got)
	}
	if uid, ok := Owner(pid); !ok || uid != os.Geteuid() {
		t.Errorf("got owner %d, %v, want %d", uid, ok, os.Geteuid())
	}
	if uid, ok := Owner(1 << 30); ok {
		t.Errorf("no process: got owner %d", uid)
	}
}

func TestProcessesAndAncestors(t *testing.T) {
	if all := PIDs(); !slices.Contains(all, os.Getpid()) {
		t.Errorf("this process, %d, is not in %d", os.Getpid(), all)
	}
	if got := SelfAndAncestors(); !got[os.Getpid()] || !got[os.Getppid()] {
		t.Errorf("this process, %d, and its parent, %d, are not in %v", os.Getpid(), os.Getppid(), got)
	}
}

func TestReadGrowsItsBuffer(t *testing.T) {
	pid := os.Getpid()
	short, ok := Read(pid, "cmdline", make([]byte, 0, 3))
	if !ok || string(short) != Text(pid, "cmdline") || len(short) < 4 {
		t.Errorf("got %q, %v, want %q", short, ok, Text(pid, "cmdline"))
	}
}

package process

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHierarchies parses what real machines show: a hybrid one, one with v2 alone, and a container
// that sees the host's path.
func TestHierarchies(t *testing.T) {
	for _, c := range []struct {
		name, cgroups, mounts string
		want                  map[string]hierarchy
	}{
		{
			"hybrid", "4:memory:/user/1\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/y\n",
			"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
				"36 31 0:33 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			map[string]hierarchy{
				"memory": {own: "/sys/fs/cgroup/memory/user/1"}, "cpu": {own: "/sys/fs/cgroup/cpu"}, "cpuacct": {own: "/sys/fs/cgroup/cpu"},
				"": {unified: true, own: "/sys/fs/cgroup/unified/y"},
			},
		},
		{
			"v2", "0::/system.slice/mlfnode.service\n", "25 24 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			map[string]hierarchy{"": {unified: true, own: "/sys/fs/cgroup/system.slice/mlfnode.service"}},
		},
		{
			"container", "4:memory:/docker/abc\n", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			map[string]hierarchy{"memory": {own: "/sys/fs/cgroup/memory"}},
		},
		{
			"foreign root", "4:memory:/a\n", "35 31 0:32 /b /mnt rw - cgroup cgroup rw,memory\n",
			map[string]hierarchy{"memory": {own: "/mnt"}},
		},
		{"rubbish", "4\n\n::\n", "1 2 3\n- \n1 2 3 4 5 6 - cgroup\n", map[string]hierarchy{}},
	} {
		if diff := cmp.Diff(c.want, hierarchies(c.cgroups, c.mounts), cmp.AllowUnexported(hierarchy{})); diff != "" {
			t.Errorf("%s: hierarchies (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9000 100"
	for _, c := range []struct {
		text string
		want stat
		ok   bool
	}{
		{"7 (sh) S 1 7 6" + rest, stat{pid: 7, ppid: 1, session: 6, start: 4711}, true},
		{"7 (a) Z 1 (b) c) R 2 7 6" + rest, stat{pid: 7, ppid: 2, session: 6, start: 4711}, true},
		{"7 (sh) Z 1 7 6" + rest, stat{pid: 7, ppid: 1, session: 6, dead: true, start: 4711}, true},
		{"7 (sh) S 1 7 6 0 -1", stat{}, false},
		{"", stat{}, false},
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
		if s, ok := parseStat(7, b); ok && s.pid != 7 {
			t.Errorf("parseStat(%q): got pid %d", b, s.pid)
		}
	})
}

func FuzzHierarchies(f *testing.F) {
	f.Add("4:memory:/user/1\n0::/\n", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	f.Fuzz(func(t *testing.T, cgroups, mounts string) {
		for controller, h := range hierarchies(cgroups, mounts) {
			if h.own == "" {
				t.Errorf("hierarchy %q has no folder", controller)
			}
		}
	})
}

// TestMatchEnviron checks matchEnviron on our own process.
func TestMatchEnviron(t *testing.T) {
	pid := os.Getpid()
	if got := matchEnviron(pid, "NO_SUCH_VARIABLE=1"); got != environWithout {
		t.Errorf("an absent variable: got %d, want %d", got, environWithout)
	}
	if path, ok := os.LookupEnv("PATH"); ok {
		if got := matchEnviron(pid, "PATH="+path); got != environWith {
			t.Errorf("a variable of ours: got %d, want %d", got, environWith)
		}
	}
	if got := matchEnviron(1<<30, "A=1"); got != environUnknown {
		t.Errorf("no process: got %d, want %d", got, environUnknown)
	}
}

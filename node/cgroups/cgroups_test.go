package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHierarchies parses what real machines show: a hybrid one, one with v2 alone, and a container
// that sees the host's path.
func TestHierarchies(t *testing.T) {
	for _, c := range []struct {
		name, cgroups, mounts string
		want                  map[string]Hierarchy
	}{
		{
			"hybrid", "4:memory:/user/1\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/y\n",
			"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
				"36 31 0:33 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			map[string]Hierarchy{
				"memory": {Dir: "/sys/fs/cgroup/memory/user/1"}, "cpu": {Dir: "/sys/fs/cgroup/cpu"},
				"cpuacct": {Dir: "/sys/fs/cgroup/cpu"},
				"":        {Unified: true, Dir: "/sys/fs/cgroup/unified/y"},
			},
		},
		{
			"v2", "0::/system.slice/mlfnode.service\n",
			"25 24 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			map[string]Hierarchy{"": {Unified: true, Dir: "/sys/fs/cgroup/system.slice/mlfnode.service"}},
		},
		{
			"container", "4:memory:/docker/abc\n",
			"35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			map[string]Hierarchy{"memory": {Dir: "/sys/fs/cgroup/memory"}},
		},
		{
			"foreign root", "4:memory:/a\n", "35 31 0:32 /b /mnt rw - cgroup cgroup rw,memory\n",
			map[string]Hierarchy{"memory": {Dir: "/mnt"}},
		},
		{"rubbish", "4\n\n::\n", "1 2 3\n- \n1 2 3 4 5 6 - cgroup\n", map[string]Hierarchy{}},
	} {
		if diff := cmp.Diff(c.want, hierarchies(c.cgroups, c.mounts)); diff != "" {
			t.Errorf("%s: hierarchies (-want +got):\n%s", c.name, diff)
		}
	}
}

func FuzzHierarchies(f *testing.F) {
	f.Add("4:memory:/user/1\n0::/\n", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	f.Fuzz(func(t *testing.T, cgroups, mounts string) {
		for controller, h := range hierarchies(cgroups, mounts) {
			if h.Dir == "" {
				t.Errorf("hierarchy %q has no folder", controller)
			}
		}
	})
}

func TestParse(t *testing.T) {
	got := Parse("4:cpu,cpuacct:/a:b\n\n0::/y\nx:y\n1:name=systemd:/\n")
	want := []Membership{
		{Controllers: []string{"cpu", "cpuacct"}, Path: "/a:b"}, {Controllers: []string{""}, Path: "/y"},
		{Controllers: []string{"name=systemd"}, Path: "/"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("memberships (-want +got):\n%s", diff)
	}
	for i, unified := range []bool{false, true, false} {
		if want[i].Unified() != unified {
			t.Errorf("%+v: got unified %v", want[i], !unified)
		}
	}
}

func TestFilesOfV2(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"cgroup.controllers":     "cpu memory pids\n",
		"cgroup.subtree_control": "pids\n", "cgroup.procs": fmt.Sprintln(os.Getpid()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !Has(dir, "memory") || Has(dir, "mem") || !Enables(dir, "pids") || Enables(dir, "memory") {
		t.Error("the controllers are read wrongly")
	}
	if !HoldsOnlySelf(dir) {
		t.Error("this process is not alone in its cgroup")
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"),
		[]byte(strings.Repeat(fmt.Sprintln(os.Getpid()), 2)+"0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if none := filepath.Join(dir, "none"); HoldsOnlySelf(dir) || HoldsOnlySelf(none) || Has(none, "memory") {
		t.Error("a cgroup of others, or none at all, counts as this process's")
	}
}

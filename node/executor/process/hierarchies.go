package process

import (
	"os"
	"path/filepath"
	"strings"
)

// hierarchy is a mounted cgroup hierarchy and the position of this process in it.
type hierarchy struct {
	unified bool   // cgroup v2
	own     string // folder of this process's cgroup
}

// hierarchies returns the cgroup hierarchies of this process by controller; v2 is under "". Hybrid
// machines have both kinds.
func hierarchies(cgroups, mountinfo string) map[string]hierarchy {
	own := map[string]string{}
	for line := range strings.Lines(cgroups) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			for controller := range strings.SplitSeq(f[1], ",") {
				own[controller] = f[2]
			}
		}
	}
	found := map[string]hierarchy{}
	for line := range strings.Lines(mountinfo) {
		addMount(found, own, line)
	}
	return found
}

// addMount parses a line of mountinfo: `id parent dev root point options … - type source super`.
func addMount(found map[string]hierarchy, own map[string]string, line string) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 5 || len(r) < 3 {
		return
	}
	root, point := l[3], l[4]
	switch r[0] {
	case "cgroup2":
		found[""] = hierarchy{unified: true, own: below(point, root, own[""])}
	case "cgroup":
		for option := range strings.SplitSeq(r[2], ",") {
			if path, ok := own[option]; ok {
				found[option] = hierarchy{own: below(point, root, path)}
			}
		}
	}
}

// below returns the folder of the cgroup path in a mount that shows root at point. A container may
// see the path of the host.
func below(point, root, path string) string {
	if rel, err := filepath.Rel(root, path); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.Join(point, rel)
	}
	return point
}

// OwnCgroups returns what the kernel reports as the cgroups of this process, see cgroups(7), or ""
// if it reports nothing.
func OwnCgroups() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return string(b)
}

// ownHierarchies returns the hierarchies of this process.
func ownHierarchies() map[string]hierarchy { return hierarchiesOf(OwnCgroups()) }

// hierarchiesOf returns the hierarchies of a process of this machine, given its cgroups.
func hierarchiesOf(cgroups string) map[string]hierarchy {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || cgroups == "" {
		return nil
	}
	return hierarchies(cgroups, string(mounts))
}

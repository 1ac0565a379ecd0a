// Package cgroups finds the cgroups that processes are in, of both versions, see cgroups(7).
package cgroups

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Membership is the place of a process in one hierarchy: a line of /proc/<pid>/cgroup.
type Membership struct {
	Controllers []string // of v1; one that is empty means v2
	Path        string   // below the root of the hierarchy, or of the process's cgroup namespace
}

// Unified reports whether this is the hierarchy of v2.
func (m Membership) Unified() bool { return len(m.Controllers) == 1 && m.Controllers[0] == "" }

// Parse reads the lines `number:controllers:path` of /proc/<pid>/cgroup, and skips others.
func Parse(text string) []Membership {
	var all []Membership
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			all = append(all, Membership{Controllers: strings.Split(f[1], ","), Path: f[2]})
		}
	}
	return all
}

// Hierarchy is a mounted hierarchy and the place of a process in it.
type Hierarchy struct {
	Unified bool   // v2
	Dir     string // the folder of the process's cgroup
}

// Own returns the content of this process's /proc/self/cgroup, or "" if the kernel has none. Unlike
// /proc/<pid>, it is right in a PID namespace that sees the /proc of another.
func Own() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return string(b)
}

// Hierarchies returns the hierarchies of a process of this machine by controller, from the content
// of its /proc/<pid>/cgroup; v2 is under "". Hybrid machines have both versions.
func Hierarchies(text string) map[string]Hierarchy {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || text == "" {
		return nil
	}
	return hierarchies(text, string(mounts))
}

// hierarchies reads lines of mountinfo, `id parent dev root point options … - type source super`.
func hierarchies(text, mountinfo string) map[string]Hierarchy {
	paths := map[string]string{}
	for _, m := range Parse(text) {
		for _, controller := range m.Controllers {
			paths[controller] = m.Path
		}
	}
	found := map[string]Hierarchy{}
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		root, point := l[3], l[4]
		switch r[0] {
		case "cgroup2":
			found[""] = Hierarchy{Unified: true, Dir: below(point, root, paths[""])}
		case "cgroup":
			for option := range strings.SplitSeq(r[2], ",") {
				if path, ok := paths[option]; ok {
					found[option] = Hierarchy{Dir: below(point, root, path)}
				}
			}
		}
	}
	return found
}

// below returns the folder of the cgroup path in a mount that shows root at point. A container may
// see the path of the host.
func below(point, root, path string) string {
	if rel, err := filepath.Rel(root, path); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.Join(point, rel)
	}
	return point
}

// Has reports whether a v2 cgroup has a controller.
func Has(dir, controller string) bool { return names(dir, "cgroup.controllers", controller) }

// Enables reports whether a v2 cgroup enables a controller for its children.
func Enables(dir, controller string) bool { return names(dir, "cgroup.subtree_control", controller) }

func names(dir, file, controller string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, file))
	return slices.Contains(strings.Fields(string(b)), controller)
}

// HoldsOnlySelf reports whether this process is the only one in a cgroup. A process in another PID
// namespace shows as 0.
func HoldsOnlySelf(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

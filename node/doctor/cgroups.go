package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits says which limits of resources a node on this host can enforce, for Host.Limits: those whose cgroup controllers
// there are and whose cgroup this process may divide.
func Limits() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return limitsUnder("/sys/fs/cgroup", string(b))
}

func limitsUnder(mount, cgroups string) string {
	var enforced []string
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		dir, controllers := filepath.Join(mount, parts[1], parts[2]), strings.Split(parts[1], ",")
		if parts[1] == "" {
			dir = filepath.Join(mount, parts[2])
			b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
			controllers = strings.Fields(string(b))
		}
		if unix.Access(dir, unix.W_OK) == nil && slices.Contains(controllers, "memory") {
			enforced = append(enforced, "memory")
		}
	}
	return strings.Join(slices.Compact(enforced), ", ")
}

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits returns the resource limits that a node on this host can enforce, for Host.Limits: those
// whose cgroup controllers exist, in a cgroup where the node may create children. The node runs as
// the service, if there is one, and otherwise in this process's cgroup.
func Limits(s *Service) string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	scopes := "" // where systemd creates the scopes of shims, below the mount of v2
	if s != nil && s.Installed {
		scopes = "/"
		if s.User {
			scopes = fmt.Sprintf("/user.slice/user-%d.slice/user@%[1]d.service", os.Getuid())
		}
	}
	return limitsUnder("/sys/fs/cgroup", string(b), scopes)
}

// limitsUnder reads a process's lines `number:controllers:path`, see cgroups(7).
func limitsUnder(mount, cgroups, scopes string) string {
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		enforced := false
		switch dir := filepath.Join(mount, parts[1], parts[2]); {
		case parts[1] != "":
			enforced = slices.Contains(strings.Split(parts[1], ","), "memory") && unix.Access(dir, unix.W_OK) == nil
		case scopes != "": // a scope contains only the shim, which may create children
			enforced = hasMemory(filepath.Join(mount, scopes))
		default:
			enforced = hasMemory(dir) && unix.Access(dir, unix.W_OK) == nil && canLimitChildren(dir)
		}
		if enforced {
			return "memory"
		}
	}
	return ""
}

// hasMemory reports whether a v2 cgroup has the memory controller.
func hasMemory(dir string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return slices.Contains(strings.Fields(string(b)), "memory")
}

// canLimitChildren reports whether the children of a v2 cgroup can have memory limits: the
// controller is enabled for them, or the cgroup contains only this process, which can move, or it
// is the root.
func canLimitChildren(dir string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if slices.Contains(strings.Fields(string(b)), "memory") {
		return true
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid()) {
		return true
	}
	_, err = os.Stat(filepath.Join(dir, "cgroup.type")) // which only the root lacks
	return err != nil
}

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/node/cgroups"
)

// memory is the controller that enforces limits.
const memory = "memory"

// Limits returns the resource limits that a node on this host can enforce, for Host.Limits: those
// whose cgroup controllers exist, in a cgroup where the node may create children. The node runs as
// the service, if there is one, and otherwise in this process's cgroup.
func Limits(s *Service) string {
	scopes := "" // where systemd creates the scopes of shims, below the mount of v2
	if s != nil && s.Installed {
		scopes = "/"
		if s.User {
			scopes = fmt.Sprintf("/user.slice/user-%d.slice/user@%[1]d.service", os.Getuid())
		}
	}
	return limitsUnder("/sys/fs/cgroup", cgroups.Own(), scopes)
}

func limitsUnder(mount, own, scopes string) string {
	for _, m := range cgroups.Parse(own) {
		enforced := false
		switch dir := filepath.Join(mount, strings.Join(m.Controllers, ","), m.Path); {
		case !m.Unified():
			enforced = slices.Contains(m.Controllers, memory) && unix.Access(dir, unix.W_OK) == nil
		case scopes != "": // a scope contains only the shim, which may create children
			enforced = cgroups.Has(filepath.Join(mount, scopes), memory)
		default:
			enforced = cgroups.Has(dir, memory) && unix.Access(dir, unix.W_OK) == nil && canLimitChildren(dir)
		}
		if enforced {
			return memory
		}
	}
	return ""
}

// canLimitChildren reports whether the children of a v2 cgroup can have memory limits: the
// controller is enabled for them, or the cgroup contains only this process, which can move, or it
// is the root.
func canLimitChildren(dir string) bool {
	if cgroups.Enables(dir, memory) || cgroups.HoldsOnlySelf(dir) {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "cgroup.type")) // which only the root lacks
	return err != nil
}

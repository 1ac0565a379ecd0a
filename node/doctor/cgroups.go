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

// Limits says which limits of resources a node on this host can enforce, for Host.Limits: those whose cgroup controllers
// there are and whose cgroup it may divide. The node is the service, if there is one, and else would be begun like this process.
func Limits(s *Service) string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	scopes := "" // of v2, below the mount: where systemd makes the scopes of shims
	if s != nil && s.Installed {
		scopes = "/"
		if s.User {
			scopes = fmt.Sprintf("/user.slice/user-%d.slice/user@%[1]d.service", os.Getuid())
		}
	}
	return limitsUnder("/sys/fs/cgroup", string(b), scopes)
}

// limitsUnder reads the lines `number:controllers:path` of a process, cgroups(7).
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
		case scopes != "": // each holds a shim alone, which may divide it
			enforced = offers(filepath.Join(mount, scopes))
		default:
			enforced = offers(dir) && unix.Access(dir, unix.W_OK) == nil && divisible(dir)
		}
		if enforced {
			return "memory"
		}
	}
	return ""
}

// offers reports whether limits of memory can be had in a v2 cgroup.
func offers(dir string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return slices.Contains(strings.Fields(string(b)), "memory")
}

// divisible reports whether the children of a v2 cgroup can have limits: it has passed them on, or it holds nobody but this
// process, which can step out of the way, or it is the root.
func divisible(dir string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if slices.Contains(strings.Fields(string(b)), "memory") {
		return true
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid()) {
		return true
	}
	_, err = os.Stat(filepath.Join(dir, "cgroup.type")) // which the root alone has not
	return err != nil
}

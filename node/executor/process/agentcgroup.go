package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cgroups chooses how process trees are held together.
type Cgroups string

// The choices. CgroupsAuto takes the best that this machine allows; the others are for tests and for machines where the
// best is not wanted. CgroupsV2Old is v2 as kernels before 5.14 have it, which kill no cgroup as a whole. A colon and a name after
// CgroupsV2 have that controller stand in for memory, on machines whose v2 hierarchy lacks it: what is done to enable one is the same.
const (
	CgroupsAuto  Cgroups = ""
	CgroupsV2    Cgroups = "v2"
	CgroupsV2Old Cgroups = "v2-old"
	CgroupsV1    Cgroups = "v1"
	CgroupsOff   Cgroups = "off"
)

// v1Controllers are the v1 hierarchies that serve: memory limits and counts, pids tells cheaply that nothing is left.
var v1Controllers = [...]string{"memory", "pids"}

// agentCgroup is the folder of one agent, `mlfnode-<token>`, in each hierarchy that serves. Slots make theirs below it.
//
//	v1  <own>/mlfnode-<token>/slot-N   in memory and pids: the slot's thread sits in it, so its children are born in it
//	v2  <own>/mlfnode-<token>/slot-N   in the unified one: children are cloned into it
type agentCgroup struct {
	unified    bool
	killsWhole bool              // the kernel kills a cgroup as a whole
	dirs       map[string]string // by controller; "" is v2
	parents    map[string]string // our own cgroup in the same hierarchies, to go back to
	delegation *delegation       // v2: how this process made room for limits; nil where it did not have to
}

// memoryController is what limits come from.
const memoryController = "memory"

// parse gives the choice and the v2 controller that goes with it.
func (c Cgroups) parse() (choice Cgroups, controller string) {
	name, controller, found := strings.Cut(string(c), ":")
	if !found {
		controller = memoryController
	}
	return Cgroups(name), controller
}

// folderName is the name of the agent's folder.
func folderName(token string) string { return "mlfnode-" + token }

// openAgentCgroup makes the agent's folders. It gives nil when this machine allows none, which is no error.
func openAgentCgroup(choice Cgroups, token string) *agentCgroup {
	all := ownHierarchies()
	choice, controller := choice.parse()
	v2, hasV2 := all[""]
	if hasV2 && (choice == CgroupsV2 || choice == CgroupsV2Old || choice == CgroupsAuto) {
		if g := newUnified(v2, token, controller, choice != CgroupsAuto); g != nil {
			g.killsWhole = g.killsWhole && choice != CgroupsV2Old
			return g
		}
	}
	if choice == CgroupsV1 || choice == CgroupsAuto {
		if g := newV1(all, token); g != nil {
			return g
		}
	}
	if hasV2 && choice == CgroupsAuto {
		return newUnified(v2, token, controller, true)
	}
	return nil
}

func newV1(all map[string]hierarchy, token string) *agentCgroup {
	g := &agentCgroup{dirs: map[string]string{}, parents: map[string]string{}}
	for _, controller := range v1Controllers {
		h, ok := all[controller]
		if !ok || h.unified {
			continue
		}
		dir := filepath.Join(h.own, folderName(token))
		if makeCgroup(dir) == nil && unix.Access(filepath.Join(dir, "tasks"), unix.W_OK) == nil {
			g.dirs[controller], g.parents[controller] = dir, h.own
		}
	}
	if len(g.dirs) == 0 {
		return nil
	}
	return g
}

// newUnified makes the folder in the v2 hierarchy. Without the controller it only holds trees together, which is taken when
// bare is set.
func newUnified(h hierarchy, token, controller string, bare bool) *agentCgroup {
	g := &agentCgroup{unified: true, dirs: map[string]string{"": filepath.Join(h.own, folderName(token))}, parents: map[string]string{"": h.own}}
	err := enableController(h.own, controller)
	if errors.Is(err, unix.EBUSY) {
		g.delegation, err = delegate(h.own, token, controller)
	}
	if (err == nil || bare) && g.prepare(err == nil, controller) {
		return g
	}
	_ = g.close() // nothing is in it; what can't be removed does no harm
	return nil
}

// prepare makes the folder of a v2 group and reports whether slots can be made in it.
func (g *agentCgroup) prepare(limited bool, controller string) bool {
	dir := g.dirs[""]
	if makeCgroup(dir) != nil {
		return false
	}
	if limited {
		_ = enableController(dir, controller) // limits looks whether it is there
	}
	g.killsWhole = unix.Access(filepath.Join(dir, "cgroup.kill"), unix.W_OK) == nil
	return clonesIntoCgroups() && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil &&
		unix.Access(filepath.Join(g.parents[""], "cgroup.procs"), unix.W_OK) == nil
}

// cloneArgs is struct clone_args, clone3(2).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// clonesIntoCgroups reports whether programs can be born in a cgroup of v2: from Linux 5.7 on, where no filter of system calls forbids
// clone3. It asks for one to be born in a file that is no cgroup, which a kernel that knows how refuses for that alone (EBADF).
func clonesIntoCgroups() bool {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return true // not the kernel's fault
	}
	defer null.Close()
	args := cloneArgs{flags: unix.CLONE_INTO_CGROUP | unix.CLONE_VM | unix.CLONE_VFORK, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(null.Fd())}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	return errno == unix.EBADF
}

// close removes the agent's folders. Slots must be closed before.
func (g *agentCgroup) close() error {
	var errs []error
	for _, dir := range g.dirs {
		errs = append(errs, removeCgroupTree(dir))
	}
	return errors.Join(append(errs, g.delegation.undo())...)
}

func makeCgroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

func removeCgroup(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// writeFile writes to a file of the kernel, which must exist and must not be truncated.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return fmt.Errorf("write %q to %s: %w", text, path, err)
	}
	return nil
}

// readPids reads a cgroup.procs file, leaving out this process.
func readPids(path string) []int {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid != os.Getpid() && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

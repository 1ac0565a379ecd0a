package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"mlfnode/node/cgroups"
)

// Cgroups selects how process trees are held together.
type Cgroups string

// The choices. CgroupsAuto takes the best that this machine allows; the others are for tests and
// for machines where the best is not wanted. CgroupsV2Old is v2 as on kernels before 5.14, which
// can't kill a cgroup as a whole. CgroupsV2, a colon and the name of a controller use that
// controller in place of memory, for tests on machines whose v2 hierarchy lacks memory: enabling
// any controller takes the same steps.
const (
	CgroupsAuto  Cgroups = ""
	CgroupsV2    Cgroups = "v2"
	CgroupsV2Old Cgroups = "v2-old"
	CgroupsV1    Cgroups = "v1"
	CgroupsOff   Cgroups = "off"
)

// v1Controllers are the v1 hierarchies in use: memory limits and accounts, and pids shows cheaply
// that nothing is left.
var v1Controllers = [...]string{"memory", "pids"}

// agentCgroup is the folder of one agent, `mlfnode-<token>`, in each hierarchy in use. Slots make
// their folders below it.
//
//	v1  <own>/mlfnode-<token>/slot-N   memory and pids: the slot's thread sits in it, so its children are born in it
//	v2  <own>/mlfnode-<token>/slot-N   in the unified hierarchy: children are cloned into it
type agentCgroup struct {
	unified    bool
	killsWhole bool              // the kernel can kill a cgroup as a whole
	dirs       map[string]string // by controller; "" is v2
	parents    map[string]string // our own cgroup in the same hierarchies, to return to
	delegation *delegation       // v2: how this process made room for limits; nil if it did not have to
	slotCount  atomic.Int64      // slots made so far
	threads    slotThreads       // v1
}

// memoryController is the controller that enforces limits.
const memoryController = "memory"

// memoryKey returns the key in dirs of the hierarchy with the memory controller.
func (g *agentCgroup) memoryKey() string {
	if g.unified {
		return ""
	}
	return memoryController
}

// limits reports whether memory limits are enforced in the group's folders.
func (g *agentCgroup) limits() bool {
	file := "memory.limit_in_bytes"
	if g.unified {
		file = "memory.max"
	}
	dir := g.dirs[g.memoryKey()]
	return dir != "" && unix.Access(filepath.Join(dir, file), unix.W_OK) == nil
}

// folderName returns the name of the agent's folder.
func folderName(token string) string { return "mlfnode-" + token }

// openAgentCgroup creates the agent's folders. It returns nil if this machine allows none, which is
// not an error.
func openAgentCgroup(choice Cgroups, token string) *agentCgroup {
	all := cgroups.Hierarchies(cgroups.Own())
	name, controller, found := strings.Cut(string(choice), ":")
	if choice = Cgroups(name); !found {
		controller = memoryController
	}
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

func newV1(all map[string]cgroups.Hierarchy, token string) *agentCgroup {
	g := &agentCgroup{dirs: map[string]string{}, parents: map[string]string{}}
	for _, controller := range v1Controllers {
		h, ok := all[controller]
		if !ok || h.Unified {
			continue
		}
		dir := filepath.Join(h.Dir, folderName(token))
		if makeCgroup(dir) == nil && unix.Access(filepath.Join(dir, "tasks"), unix.W_OK) == nil {
			g.dirs[controller], g.parents[controller] = dir, h.Dir
		}
	}
	if len(g.dirs) == 0 {
		return nil
	}
	return g
}

// newUnified creates the folder in the v2 hierarchy. Without the controller the folder only holds
// trees together, which is accepted if bare is set.
func newUnified(h cgroups.Hierarchy, token, controller string, bare bool) *agentCgroup {
	g := &agentCgroup{unified: true, dirs: map[string]string{"": filepath.Join(h.Dir, folderName(token))},
		parents: map[string]string{"": h.Dir}}
	err := enableController(h.Dir, controller)
	if errors.Is(err, unix.EBUSY) {
		g.delegation, err = delegate(h.Dir, token, controller)
	}
	if (err == nil || bare) && g.prepare(err == nil, controller) {
		return g
	}
	_ = g.close() // nothing is in it; what can't be removed does no harm
	return nil
}

// prepare creates the folder of a v2 group and reports whether slots can be made in it.
func (g *agentCgroup) prepare(limited bool, controller string) bool {
	dir := g.dirs[""]
	if makeCgroup(dir) != nil {
		return false
	}
	if limited {
		_ = enableController(dir, controller) // limits checks whether it is there
	}
	g.killsWhole = unix.Access(filepath.Join(dir, "cgroup.kill"), unix.W_OK) == nil
	return clonesIntoCgroups() && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil &&
		unix.Access(filepath.Join(g.parents[""], "cgroup.procs"), unix.W_OK) == nil
}

// cloneArgs is struct clone_args, clone3(2).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// clonesIntoCgroups reports whether programs can be born in a v2 cgroup: since Linux 5.7, unless a
// system call filter forbids clone3. It tries to clone into a file that is not a cgroup, which a
// capable kernel refuses for that reason alone (EBADF).
func clonesIntoCgroups() bool {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return true // not a limitation of the kernel
	}
	defer null.Close()
	args := cloneArgs{flags: unix.CLONE_INTO_CGROUP | unix.CLONE_VM | unix.CLONE_VFORK,
		exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(null.Fd())}
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

// writeFile writes to a kernel file, which must exist and must not be truncated.
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

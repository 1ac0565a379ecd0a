package process

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/node/cgroups"
)

// delegation is this process's move out of its own v2 cgroup into a child of it. A cgroup that
// enables a controller for its children may not hold processes itself ("no internal processes",
// cgroups(7)), so a process that divides the cgroup delegated to it first moves into a part of it:
//
//	<own>                         enables the controller for its children
//	<own>/mlfnode-<token>.self    this process
//	<own>/mlfnode-<token>/slot-N  what it runs
type delegation struct{ own, self, controller string }

// delegationOf returns the delegation without performing it. No token contains a dot, so the folder
// can't be another agent's.
func delegationOf(own, token, controller string) *delegation {
	return &delegation{own: own, self: filepath.Join(own, folderName(token)+".self"), controller: controller}
}

var errShared = errors.New("the cgroup is not ours alone to divide")

// delegate moves this process and enables the controller. It refuses if other processes live in the
// cgroup, such as the shell in that of a terminal, and if the cgroup was not delegated to us.
func delegate(own, token, controller string) (*delegation, error) {
	if !cgroups.HoldsOnlySelf(own) || !isDelegated(own) {
		return nil, errShared
	}
	a := delegationOf(own, token, controller)
	err := makeCgroup(a.self)
	if err == nil {
		err = writeFile(filepath.Join(a.self, "cgroup.procs"), strconv.Itoa(os.Getpid()))
	}
	if err == nil {
		err = enableController(own, controller)
	}
	if err != nil {
		return nil, errors.Join(err, a.undo())
	}
	return a, nil
}

// undo moves this process back, with the processes that it has started itself, and disables the
// controller.
func (d *delegation) undo() error {
	if d == nil {
		return nil
	}
	errs := []error{disableController(d.own, d.controller)}
	for _, pid := range append(readPids(filepath.Join(d.self, "cgroup.procs")), os.Getpid()) {
		err := writeFile(filepath.Join(d.own, "cgroup.procs"), strconv.Itoa(pid))
		if !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, removeCgroup(d.self))...)
}

// removeStale removes what a dead agent's delegation has left, unless other processes live in it by
// now.
func (d *delegation) removeStale() {
	if _, err := os.Stat(d.self); err == nil && removeCgroup(d.self) == nil {
		_ = disableController(d.own, d.controller) // fails as busy if the controller was enabled before and is in use
	}
}

// isDelegated reports whether the manager of this machine's cgroups has delegated this one to us.
// Systemd marks what it has delegated (https://systemd.io/CGROUP_DELEGATION), except that its older
// releases don't mark a user's own, who can write to no other. The cgroup of a trial has no mark
// and belongs to its executor.
func isDelegated(dir string) bool {
	for _, mark := range []string{"trusted.delegate", "user.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, mark, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	_, err := os.Stat("/run/systemd/system")
	trial := os.Getenv(strings.TrimSuffix(runVar, "=")) != ""
	return !trial && (err != nil || os.Geteuid() != 0)
}

// enableController enables a controller for the children of dir. The kernel refuses with EBUSY
// while dir holds processes.
func enableController(dir, controller string) error {
	if cgroups.Enables(dir, controller) {
		return nil
	}
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
}

func disableController(dir, controller string) error {
	if !cgroups.Enables(dir, controller) {
		return nil
	}
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), "-"+controller)
}

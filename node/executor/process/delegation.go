package process

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// delegation is a step of this process out of its own v2 cgroup into a child of it. A cgroup that passes a controller on to its
// children may hold no processes itself ("no internal processes", cgroups(7)), so who is given a cgroup to divide moves
// into a part of it:
//
//	<own>                         passes the controller on
//	<own>/mlfnode-<token>.self    this process
//	<own>/mlfnode-<token>/slot-N  what it runs
type delegation struct{ own, self, controller string }

// delegationOf names the step. No token has a dot, so the folder is no other agent's.
func delegationOf(own, token, controller string) *delegation {
	return &delegation{own: own, self: filepath.Join(own, folderName(token)+".self"), controller: controller}
}

var errShared = errors.New("the cgroup is not ours alone to divide")

// delegate moves this process and passes the controller on. It refuses where others live in the cgroup, as the shell does in
// that of a terminal, and where the cgroup was not left to us.
func delegate(own, token, controller string) (*delegation, error) {
	if !isAlone(own) || !isDelegated(own) {
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

// undo undoes the step. Processes that this one has started itself come back with it.
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

// removeStale removes what the step of a dead agent has left. Where processes of others have come to live in it, it stays.
func (d *delegation) removeStale() {
	if _, err := os.Stat(d.self); err == nil && removeCgroup(d.self) == nil {
		_ = disableController(d.own, d.controller) // one that passed it on before needs it, and is then busy
	}
}

// isAlone reports whether this process is the only one of the cgroup. One that is in another PID namespace shows as 0.
func isAlone(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

// isDelegated reports whether whoever rules this machine's cgroups has left this one to us. Systemd marks what it has delegated
// (https://systemd.io/CGROUP_DELEGATION); its older releases don't for a user's own, who can write in no other. The cgroup of
// a trial bears no mark and is its executor's.
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

// enableController passes a controller on to the children of dir. The kernel refuses that with EBUSY while dir holds processes.
func enableController(dir, controller string) error {
	if hasController(dir, controller) {
		return nil
	}
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
}

func disableController(dir, controller string) error {
	if !hasController(dir, controller) {
		return nil
	}
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), "-"+controller)
}

// hasController reports whether dir passes the controller on.
func hasController(dir, controller string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	for name := range strings.FieldsSeq(string(b)) {
		if name == controller {
			return true
		}
	}
	return false
}

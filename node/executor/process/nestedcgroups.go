package process

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A program may make cgroups below its slot's: a container runtime, another mlfnode, a sandbox. What lives there belongs to
// the attempt like everything else, and the folders go with it.

// cgroupTree lists a cgroup and every one below it, the deepest first.
func cgroupTree(dir string) (dirs []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is gone, and was empty
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, cgroupTree(filepath.Join(dir, e.Name()))...)
		}
	}
	return append(dirs, dir)
}

// treePids lists the processes in a cgroup and below it, leaving out this process.
func treePids(dir string) (pids []int) {
	for _, d := range cgroupTree(dir) {
		pids = append(pids, readPids(filepath.Join(d, "cgroup.procs"))...)
	}
	return pids
}

// removeCgroupTree removes a cgroup with everything below it.
func removeCgroupTree(dir string) error {
	var errs []error
	for _, d := range cgroupTree(dir) {
		errs = append(errs, removeCgroup(d))
	}
	return errors.Join(errs...)
}

// hasChildren reports whether there are cgroups below the cgroup that is open as fd. The kernel counts one link for each (cgroup
// file systems are kernfs, whose folders have two links and one for each folder in them).
func hasChildren(fd counter) bool {
	var st unix.Stat_t
	return unix.Fstat(int(fd), &st) == nil && st.Nlink > 2
}

// removeNested removes what an attempt has made below the slot's cgroup, so that the next one finds none of it. On v2 the cgroup
// itself is created again: a program that divides it may have passed controllers on, and then nothing can be started in it.
func (c *slotCgroup) removeNested() error {
	if c == nil {
		return nil
	}
	if !slices.ContainsFunc(c.folders, hasChildren) {
		return nil
	}
	if !c.group.unified {
		var errs []error
		for _, dir := range c.dirs {
			for _, d := range cgroupTree(dir) {
				if d != dir {
					errs = append(errs, removeCgroup(d))
				}
			}
		}
		return errors.Join(errs...)
	}
	if err := c.close(); err != nil {
		return errors.Join(err, c.create())
	}
	return c.create()
}

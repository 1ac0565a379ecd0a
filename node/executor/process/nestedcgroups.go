package process

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A program may make cgroups below its slot's: a container runtime, another mlfnode, a sandbox.
// What lives there belongs to the attempt like everything else, and the folders are removed with
// it.

// cgroupTree lists a cgroup and all cgroups below it, the deepest first.
func cgroupTree(dir string) (dirs []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it was empty and has been removed
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, cgroupTree(filepath.Join(dir, e.Name()))...)
		}
	}
	return append(dirs, dir)
}

// treePids lists the processes in a cgroup and below it, except this process.
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

// hasChildren reports whether there are cgroups below the cgroup that is open as fd. The kernel
// counts one link for each (cgroup file systems are kernfs, whose folders have two links plus one
// for each subfolder).
func hasChildren(fd counter) bool {
	var st unix.Stat_t
	return unix.Fstat(int(fd), &st) == nil && st.Nlink > 2
}

// removeNested removes the cgroups that an attempt has made below the slot's, so that the next
// attempt finds none. On v2 the slot's cgroup itself is created again: the program may have enabled
// controllers for its children, after which nothing can be started in it.
func (c *slotCgroup) removeNested() error {
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

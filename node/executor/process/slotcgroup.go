package process

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"mlfnode/node/procfs"
)

// slotCgroup is the cgroup of one slot.
type slotCgroup struct {
	group   *agentCgroup
	dirs    map[string]string
	thread  int       // v1: the only thread of this process inside; 0 if none
	folders []counter // the dirs; on v2 the one that children are cloned into

	memory      slotMemory
	population  counter // v1: pids.current; v2: cgroup.events
	killedWhole bool    // cgroup.kill was used
	scratch     [1024]byte
}

// newSlot creates the cgroup of another slot.
func (g *agentCgroup) newSlot() (c *slotCgroup, err error) {
	name := "slot-" + strconv.FormatInt(g.slotCount.Add(1), 10)
	c = &slotCgroup{group: g, dirs: map[string]string{}, population: absent,
		memory: slotMemory{unified: g.unified, peak: absent, oomKills: absent}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	for controller, dir := range g.dirs {
		c.dirs[controller] = filepath.Join(dir, name)
	}
	c.memory.dir = c.dirs[g.memoryKey()]
	return c, c.create()
}

// create creates the folders and opens the files that are used.
func (c *slotCgroup) create() error {
	for _, dir := range c.dirs {
		if err := makeCgroup(dir); err != nil {
			return err
		}
	}
	for _, dir := range c.dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		c.folders = append(c.folders, counter(fd))
	}
	c.memory.open()
	if c.group.unified {
		c.population = openCounter(c.dirs[""], "cgroup.events", unix.O_RDONLY)
	} else if dir, ok := c.dirs["pids"]; ok {
		c.population = openCounter(dir, "pids.current", unix.O_RDONLY)
	}
	return nil
}

// addThread moves one of our threads into the v1 cgroup, in place of the previous one, so that its
// children are born there. The main thread must stay out: an out-of-memory kill would count the
// whole agent as a process of the cgroup.
func (c *slotCgroup) addThread(tid int) error {
	if err := c.removeThread(); err != nil {
		return err
	}
	c.thread = tid
	for _, dir := range c.dirs {
		if err := writeFile(filepath.Join(dir, "tasks"), strconv.Itoa(tid)); err != nil {
			return fmt.Errorf("move thread into cgroup: %w", err)
		}
	}
	return nil
}

// isEmpty reports whether the cgroup holds nothing but the program, which has ended and is not
// reaped yet. False may also mean that a closer look is needed.
func (c *slotCgroup) isEmpty() bool {
	if c.population == absent {
		return false
	}
	b := c.population.read(c.scratch[:])
	if c.group.unified {
		return bytes.Contains(b, []byte("populated 0"))
	}
	return c.thread != 0 && leadingNumber(b) == 2 // our thread and the ended program
}

// members lists the live processes in the cgroup and in those below it.
func (c *slotCgroup) members() (pids []int) {
	for _, dir := range c.dirs {
		pids = append(pids, treePids(dir)...)
	}
	slices.Sort(pids)
	return slices.DeleteFunc(slices.Compact(pids), func(pid int) bool {
		s, ok := procfs.ReadStat(pid)
		return !ok || s.Dead
	})
}

// kill kills everything in the cgroup at once, where the kernel can do that.
func (c *slotCgroup) kill() bool {
	if !c.group.killsWhole || writeFile(filepath.Join(c.dirs[""], "cgroup.kill"), "1") != nil {
		return false
	}
	c.killedWhole = true
	return true
}

// replaceKilled replaces folders that were killed as a whole. Since Linux 6.14 the kernel also
// kills whatever is cloned into such a cgroup later: cgroup_css_set_fork compares its kill count
// with that of the parent's cgroup.
func (c *slotCgroup) replaceKilled() error {
	if !c.killedWhole {
		return nil
	}
	c.closeFiles()
	for _, dir := range c.dirs {
		if err := removeCgroupTree(dir); err != nil {
			return err
		}
	}
	c.killedWhole = false
	return c.create()
}

// removeThread moves our thread out again.
func (c *slotCgroup) removeThread() error {
	if c.thread == 0 {
		return nil
	}
	var errs []error
	for controller := range c.dirs {
		err := writeFile(filepath.Join(c.group.parents[controller], "tasks"), strconv.Itoa(c.thread))
		if !errors.Is(err, unix.ESRCH) { // the thread may have ended
			errs = append(errs, err)
		}
	}
	c.thread = 0
	return errors.Join(errs...)
}

// closeFiles closes all files.
func (c *slotCgroup) closeFiles() {
	c.memory.close()
	c.population.close()
	for _, f := range c.folders {
		f.close()
	}
	c.folders = nil
}

// close moves our thread out and removes the folders.
func (c *slotCgroup) close() error {
	c.closeFiles()
	errs := []error{c.removeThread()}
	for _, dir := range c.dirs {
		errs = append(errs, removeCgroupTree(dir))
	}
	return errors.Join(errs...)
}

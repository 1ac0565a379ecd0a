package process

import (
	"bytes"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// setMemoryLimit sets the memory limit of the next attempt. Swap counts as memory, or the limit
// would bound nothing.
func (c *slotCgroup) setMemoryLimit(limit int64) error {
	if c == nil || limit == c.limit {
		return nil
	}
	dir, files := c.dirs["memory"], []string{"memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
	text := strconv.FormatInt(limit, 10)
	if limit <= 0 {
		text = "-1"
	}
	if c.group.unified {
		dir, files = c.dirs[""], []string{"memory.max"}
		if limit <= 0 {
			text = "max"
		}
	}
	if dir == "" || c.oomKills == absent {
		return nil
	}
	// On v1 the limit with swap must never be below the one without: one of its two writes is
	// refused, as intended.
	var err error
	for _, file := range files {
		if werr := writeFile(filepath.Join(dir, file), text); werr != nil && file != "memory.memsw.limit_in_bytes" {
			err = werr
		}
	}
	if c.group.unified {
		writeFile(filepath.Join(dir, "memory.swap.max"), map[bool]string{true: "max", false: "0"}[limit <= 0])
		writeFile(filepath.Join(dir, "memory.oom.group"), "1")
	}
	if err == nil {
		c.limit = limit
	}
	return err
}

// resetPeak starts a new measurement of the peak memory use and returns the current use: files that
// earlier attempts read stay cached and are charged to the slot.
func (c *slotCgroup) resetPeak() (base int64) {
	if !c.measuresPeak() {
		return 0
	}
	if _, err := unix.Pwrite(int(c.peak), []byte("0"), 0); err != nil {
		c.peak.close() // an old kernel can't reset it: the value would be that of all attempts so far
		return 0
	}
	return leadingNumber(c.read(c.peak))
}

// measuresPeak reports whether the peak memory use of attempts is known.
func (c *slotCgroup) measuresPeak() bool { return c != nil && c.peak != absent }

// peakMemory returns the peak memory use since resetPeak.
func (c *slotCgroup) peakMemory() int64 {
	if !c.measuresPeak() {
		return 0
	}
	return leadingNumber(c.read(c.peak))
}

// countsOOMKills reports whether the kernel counts the slot's own out-of-memory kills.
func (c *slotCgroup) countsOOMKills() bool { return c != nil && c.oomKills != absent }

// oomKilled reports whether the kernel has killed a process in the cgroup for lack of memory since
// the last call.
func (c *slotCgroup) oomKilled() bool {
	if !c.countsOOMKills() {
		return false
	}
	_, rest, found := bytes.Cut(c.read(c.oomKills), []byte("oom_kill "))
	if !found {
		return false
	}
	n := leadingNumber(rest)
	grew := n > c.killsSeen
	c.killsSeen = n
	return grew
}

// leadingNumber parses the decimal number at the start of b.
func leadingNumber(b []byte) (n int64) {
	for _, d := range b {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int64(d-'0')
	}
	return n
}

// limits reports whether memory limits are enforced in the group's folders.
func (g *agentCgroup) limits() bool {
	dir, file := g.dirs["memory"], "memory.limit_in_bytes"
	if g.unified {
		dir, file = g.dirs[""], "memory.max"
	}
	return dir != "" && unix.Access(filepath.Join(dir, file), unix.W_OK) == nil
}

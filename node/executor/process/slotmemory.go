package process

import (
	"bytes"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// slotMemory limits and measures the memory of a slot's cgroup. A nil *slotMemory stands for a
// machine without cgroups: it enforces nothing and measures nothing.
type slotMemory struct {
	unified   bool
	dir       string  // the cgroup with the memory controller; "" if there is none
	peak      counter // peak use since the last reset
	oomKills  counter // out-of-memory kills
	killsSeen int64   // the value of oomKills when it was last read
	limit     int64   // the limit in force
	scratch   [1024]byte
}

// open opens the files of a cgroup that was just made. A file that this machine lacks stays absent.
func (m *slotMemory) open() {
	m.killsSeen, m.limit, m.peak, m.oomKills = 0, 0, absent, absent
	switch {
	case m.unified:
		m.peak = openCounter(m.dir, "memory.peak", unix.O_RDWR)
		m.oomKills = openCounter(m.dir, "memory.events", unix.O_RDONLY)
	case m.dir != "":
		m.peak = openCounter(m.dir, "memory.max_usage_in_bytes", unix.O_RDWR)
		m.oomKills = openCounter(m.dir, "memory.oom_control", unix.O_RDONLY)
	}
}

func (m *slotMemory) close() {
	m.peak.close()
	m.oomKills.close()
}

// setLimit sets the memory limit of the next attempt. Swap counts as memory, or the limit would
// bound nothing.
func (m *slotMemory) setLimit(limit int64) error {
	if m == nil || limit == m.limit || m.dir == "" || m.oomKills == absent {
		return nil
	}
	files := []string{"memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
	text, swap := strconv.FormatInt(limit, 10), "0"
	if m.unified {
		files = []string{"memory.max"}
	}
	switch {
	case limit > 0:
	case m.unified:
		text, swap = "max", "max"
	default:
		text = "-1"
	}
	// On v1 the limit with swap must never be below the one without: one of its two writes is
	// refused, as intended.
	var err error
	for _, file := range files {
		if werr := writeFile(filepath.Join(m.dir, file), text); werr != nil && file != "memory.memsw.limit_in_bytes" {
			err = werr
		}
	}
	if m.unified {
		writeFile(filepath.Join(m.dir, "memory.swap.max"), swap)
		writeFile(filepath.Join(m.dir, "memory.oom.group"), "1")
	}
	if err == nil {
		m.limit = limit
	}
	return err
}

// resetPeak starts a new measurement of the peak memory use and returns the current use: files that
// earlier attempts read stay cached and are charged to the slot.
func (m *slotMemory) resetPeak() (base int64) {
	if !m.measuresPeak() {
		return 0
	}
	if _, err := unix.Pwrite(int(m.peak), []byte("0"), 0); err != nil {
		m.peak.close() // an old kernel can't reset it: the value would be that of all attempts so far
		return 0
	}
	return leadingNumber(m.peak.read(m.scratch[:]))
}

// measuresPeak reports whether the peak memory use of attempts is known.
func (m *slotMemory) measuresPeak() bool { return m != nil && m.peak != absent }

// peakUse returns the peak memory use since resetPeak.
func (m *slotMemory) peakUse() int64 {
	if !m.measuresPeak() {
		return 0
	}
	return leadingNumber(m.peak.read(m.scratch[:]))
}

// countsOOMKills reports whether the kernel counts the slot's own out-of-memory kills.
func (m *slotMemory) countsOOMKills() bool { return m != nil && m.oomKills != absent }

// oomKilled reports whether the kernel has killed a process in the cgroup for lack of memory since
// the last call.
func (m *slotMemory) oomKilled() bool {
	if !m.countsOOMKills() {
		return false
	}
	_, rest, found := bytes.Cut(m.oomKills.read(m.scratch[:]), []byte("oom_kill "))
	if !found {
		return false
	}
	n := leadingNumber(rest)
	grew := n > m.killsSeen
	m.killsSeen = n
	return grew
}

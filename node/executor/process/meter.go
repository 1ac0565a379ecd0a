package process

import (
	"bytes"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/cgroups"
	"mlfnode/node/procfs"
)

// Meter reads the usage of the cgroup of a process that others have started. It must be read while
// something runs there: the kernel removes the values with the cgroup. A value that this machine
// does not have stays 0.
type Meter struct {
	cpu, peak, kills counter
	unified          bool

	CPU   int64 // microseconds
	Peak  int64 // bytes
	Kills int64 // out-of-memory kills
}

// OpenMeter opens the usage files of the cgroup that a process is in.
func OpenMeter(pid int) *Meter {
	m := &Meter{cpu: absent, peak: absent, kills: absent}
	own, of := cgroups.Hierarchies(cgroups.Own()), cgroups.Hierarchies(procfs.Text(pid, "cgroup"))
	if of == nil {
		return m
	}
	open := func(controller, name string) counter {
		// it is our own, or outside of what we can see
		if of[controller].Dir == "" || of[controller].Dir == own[controller].Dir {
			return absent
		}
		return openCounter(of[controller].Dir, name, unix.O_RDONLY)
	}
	if _, v1 := of["memory"]; v1 {
		m.cpu, m.peak, m.kills = open("cpuacct", "cpuacct.usage"), open("memory", "memory.max_usage_in_bytes"),
			open("memory", "memory.oom_control")
		return m
	}
	m.unified = true
	m.cpu, m.peak, m.kills = open("", "cpu.stat"), open("", "memory.peak"), open("", "memory.events")
	return m
}

// Look reads the values. Those that can no longer be read keep their last value.
func (m *Meter) Look() {
	if b := m.cpu.read(make([]byte, 1024)); m.unified {
		m.CPU = max(m.CPU, field(b, "usage_usec "))
	} else {
		m.CPU = max(m.CPU, leadingNumber(b)/1000)
	}
	m.Peak = max(m.Peak, leadingNumber(m.peak.read(make([]byte, 1024))))
	m.Kills = max(m.Kills, field(m.kills.read(make([]byte, 1024)), "oom_kill "))
}

// Usage returns what was read, with the given wall time.
func (m *Meter) Usage(wall int64) grid.Usage {
	return grid.Usage{Wall: wall, CPU: m.CPU, Memory: m.Peak}
}

// Close closes the files.
func (m *Meter) Close() {
	for _, f := range []*counter{&m.cpu, &m.peak, &m.kills} {
		f.close()
	}
}

// field returns the number that follows a name at the start of a line.
func field(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return leadingNumber(rest)
		}
	}
	return 0
}

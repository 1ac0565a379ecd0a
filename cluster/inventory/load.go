package inventory

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is the load of a machine, in percent. A value that cannot be read is Unknown.
type Host struct {
	Load   int // average number of runnable processes over one minute, relative to the processors
	CPU    int // processor time since the previous reading
	Memory int // memory in use
	Disk   int // disk space in use, on the disk of a folder
}

// Meter measures the load of this machine. The zero value is ready to use.
type Meter struct {
	busy, all int64 // processor time at the last reading, in kernel ticks
}

// Read returns the current load. It calls statfs on dir, which may hang, so the caller must have
// nothing else to do.
func (m *Meter) Read(dir string, cpus float64) Host {
	return m.read("/proc", dir, cpus)
}

func (m *Meter) read(proc, dir string, cpus float64) Host {
	h := Host{Load: Unknown, CPU: m.cpu(filepath.Join(proc, "stat")), Memory: Unknown, Disk: Unknown}
	if sizes, err := meminfo(filepath.Join(proc, "meminfo")); err == nil {
		free, known := sizes["MemAvailable"]
		if total := sizes["MemTotal"]; known && free >= 0 {
			h.Memory = percent(max(total-free, 0), total)
		}
	}
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) == nil && s.Blocks > 0 { // as df shows it: without the space reserved for root
		used := int64(s.Blocks - s.Bfree)
		h.Disk = percent(used, used+int64(s.Bavail))
	}
	if text, err := os.ReadFile(filepath.Join(proc, "loadavg")); err == nil && cpus > 0 {
		first, _, _ := strings.Cut(string(text), " ")
		if load, err := strconv.ParseFloat(first, 64); err == nil {
			h.Load = int(100*load/cpus + 0.5)
		}
	}
	return h
}

// cpu parses the first line of stat, `cpu  user nice system idle iowait irq softirq steal …`
// (proc_stat(5)).
func (m *Meter) cpu(path string) int {
	text, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if err != nil || len(fields) < 6 || fields[0] != "cpu" {
		return Unknown
	}
	var busy, all int64
	for i, field := range fields[1:min(len(fields), 9)] { // the time of guests is included in that of their users
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return Unknown
		}
		if all += ticks; i != 3 && i != 4 { // idle and iowait
			busy += ticks
		}
	}
	before := *m
	m.busy, m.all = busy, all
	if before.all == 0 || all <= before.all {
		return Unknown
	}
	return percent(max(busy-before.busy, 0), all-before.all)
}

// meminfo returns the sizes in a file like /proc/meminfo, in bytes: `MemTotal:  1234 kB`
// (proc_meminfo(5)). It leaves out what is not a size.
func meminfo(path string) (map[string]int64, error) {
	text, err := os.ReadFile(path)
	sizes := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64); err == nil {
			sizes[name] = kib << 10
		}
	}
	return sizes, err
}

// percent returns Unknown for a part of nothing.
func percent(part, all int64) int {
	if all <= 0 {
		return Unknown
	}
	return int((100*part + all/2) / all)
}

package inventory

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"mlfnode/node/cgroups"
)

// limits holds the limits of this process's cgroup and its ancestors. Zero means no limit.
type limits struct {
	cpus   float64
	memory int64
}

func (l limits) apply(m *Machine) {
	if l.cpus > 0 {
		m.CPUs = min(m.CPUs, l.cpus)
	}
	if l.memory > 0 {
		m.Memory = min(m.Memory, l.memory)
	}
}

// narrow applies limits if they are tighter than the current ones.
func (l *limits) narrow(cpus float64, memory int64) {
	if cpus > 0 && (l.cpus == 0 || cpus < l.cpus) {
		l.cpus = cpus
	}
	if memory > 0 && (l.memory == 0 || memory < l.memory) {
		l.memory = memory
	}
}

// containerLimits reads the limits of both cgroup versions, below a root folder that tests choose
// (cgroups(7)).
func containerLimits(root string) limits {
	var l limits
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return l
	}
	for _, m := range cgroups.Parse(string(text)) {
		if m.Unified() {
			eachGroup(filepath.Join(root, "sys/fs/cgroup"), m.Path, func(dir string) {
				quota, period, _ := strings.Cut(readLine(dir, "cpu.max"), " ")
				l.narrow(quotient(quota, period), bytes(readLine(dir, "memory.max")))
			})
		}
		for _, controller := range m.Controllers {
			if controller == "cpu" || controller == "memory" {
				eachGroup(filepath.Join(root, "sys/fs/cgroup", controller), m.Path, func(dir string) {
					l.narrow(quotient(readLine(dir, "cpu.cfs_quota_us"), readLine(dir, "cpu.cfs_period_us")),
						bytes(readLine(dir, "memory.limit_in_bytes")))
				})
			}
		}
	}
	return l
}

// eachGroup visits a group and its ancestors. A container often sees its own group as the root,
// whatever its path is.
func eachGroup(mount, group string, visit func(dir string)) {
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		visit(filepath.Join(mount, group))
		if group == "/" {
			return
		}
	}
}

// quotient returns cores from a quota and a period in microseconds, or 0 for no limit, which is
// written as "max" or -1.
func quotient(quota, period string) float64 {
	q, err := strconv.ParseFloat(quota, 64)
	p, perr := strconv.ParseFloat(period, 64)
	if err != nil || perr != nil || q <= 0 || p <= 0 {
		return 0
	}
	return q / p
}

func bytes(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func readLine(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

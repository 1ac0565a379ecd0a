// Package procfs reads what the kernel reports about processes in /proc, see proc(5). A process may
// end at any time: it then reads like one that does not exist.
package procfs

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Path returns the path of /proc/<pid>/<name>.
func Path(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// Read reads all of /proc/<pid>/<name>, into buf if it fits. ok is false if the process does not
// exist or the file may not be read.
func Read(pid int, name string, buf []byte) (content []byte, ok bool) {
	fd, err := unix.Open(Path(pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, false
		}
		if n == 0 {
			return buf, true
		}
		buf = buf[:len(buf)+n]
	}
}

// Text returns the content of /proc/<pid>/<name>, or "" if it can't be read.
func Text(pid int, name string) string {
	b, _ := Read(pid, name, make([]byte, 0, 4096)) // in one read: the file may change between two
	return string(b)
}

// Stat is the part of /proc/<pid>/stat that is used here.
type Stat struct {
	PID, Parent, Session int
	Dead                 bool   // a zombie, or being removed
	Start                uint64 // clock ticks from the start of the machine to that of the process
}

// ReadStat reads the stat of a process. ok is false if there is no such process.
func ReadStat(pid int) (s Stat, ok bool) {
	b, ok := Read(pid, "stat", make([]byte, 0, 512))
	if !ok {
		return Stat{}, false
	}
	return parseStat(pid, b)
}

// parseStat parses `pid (name) state ppid pgrp session … starttime …`; the name may contain
// anything, including parentheses and spaces.
func parseStat(pid int, b []byte) (s Stat, ok bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return Stat{}, false
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 {
		return Stat{}, false
	}
	s = Stat{PID: pid, Dead: f[0][0] == 'Z' || f[0][0] == 'X'}
	var err1, err2, err3 error
	s.Parent, err1 = strconv.Atoi(string(f[1]))
	s.Session, err2 = strconv.Atoi(string(f[3]))
	s.Start, err3 = strconv.ParseUint(string(f[19]), 10, 64)
	return s, err1 == nil && err2 == nil && err3 == nil
}

// EnvironMatch says whether a process was started with a variable.
type EnvironMatch uint8

// What MatchEnviron can find.
const (
	EnvironWithout EnvironMatch = iota // it has an environment without the variable
	EnvironWith                        // it was started with the variable
	EnvironUnknown                     // it shows none: it is loading a program, or was started with an empty one
)

// MatchEnviron searches the environment that a process was started with for exactly kv.
func MatchEnviron(pid int, kv string) EnvironMatch {
	env, ok := Read(pid, "environ", make([]byte, 0, 8192))
	if !ok || len(env) == 0 {
		return EnvironUnknown
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if string(entry) == kv {
			return EnvironWith
		}
	}
	return EnvironWithout
}

// Args returns the arguments of a process, the program's name first; nil if they can't be read or
// are empty, as those of a zombie.
func Args(pid int) []string {
	line := strings.TrimSuffix(Text(pid, "cmdline"), "\x00")
	if line == "" {
		return nil
	}
	return strings.Split(line, "\x00")
}

// Owner returns the user that a process belongs to. ok is false if there is no such process.
func Owner(pid int) (uid int, ok bool) {
	info, err := os.Stat(Path(pid, ""))
	if err != nil {
		return 0, false
	}
	return int(info.Sys().(*syscall.Stat_t).Uid), true
}

// PIDs lists the IDs of all visible processes.
func PIDs() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// SelfAndAncestors returns the IDs of this process and of its ancestors.
func SelfAndAncestors() map[int]bool {
	pids := map[int]bool{}
	for pid := os.Getpid(); pid > 0 && !pids[pid]; {
		pids[pid] = true
		s, _ := ReadStat(pid)
		pid = s.Parent
	}
	return pids
}

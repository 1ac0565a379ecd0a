package process

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// stat is the part of /proc/<pid>/stat that is used here.
type stat struct {
	pid, ppid, session int
	dead               bool   // a zombie, or being removed
	start              uint64 // as in processid.ID
}

// readStat reads the stat of one process. ok is false if there is no such process.
func readStat(pid int) (s stat, ok bool) {
	b, ok := readProc(pid, "stat", make([]byte, 0, 512))
	if !ok {
		return stat{}, false
	}
	return parseStat(pid, b)
}

// parseStat parses `pid (name) state ppid pgrp session … starttime …`; the name may contain
// anything, including parentheses and spaces.
func parseStat(pid int, b []byte) (s stat, ok bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, false
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 {
		return stat{}, false
	}
	s = stat{pid: pid, dead: f[0][0] == 'Z' || f[0][0] == 'X'}
	var err1, err2, err3 error
	s.ppid, err1 = strconv.Atoi(string(f[1]))
	s.session, err2 = strconv.Atoi(string(f[3]))
	s.start, err3 = strconv.ParseUint(string(f[19]), 10, 64)
	return s, err1 == nil && err2 == nil && err3 == nil
}

// readProc reads all of /proc/<pid>/<name>, into buf if it fits.
func readProc(pid int, name string, buf []byte) ([]byte, bool) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
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

// environMatch says whether a process was started with a variable.
type environMatch uint8

const (
	environWithout environMatch = iota // it has an environment without the variable
	environWith                        // it was started with the variable
	environUnknown                     // it shows none: it is loading a program, or was started with an empty one
)

// matchEnviron searches the environment that pid was started with for exactly kv.
func matchEnviron(pid int, kv string) environMatch {
	env, ok := readProc(pid, "environ", make([]byte, 0, 8192))
	if !ok || len(env) == 0 {
		return environUnknown
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if string(entry) == kv {
			return environWith
		}
	}
	return environWithout
}

// processes lists the ids of all visible processes.
func processes() []int {
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

// alive removes the processes that have ended from pids.
func alive(pids []int) []int {
	kept := pids[:0]
	for _, pid := range pids {
		if s, ok := readStat(pid); ok && !s.dead {
			kept = append(kept, pid)
		}
	}
	return kept
}

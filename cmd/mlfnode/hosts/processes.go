package hosts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is a process on a host.
type Process struct {
	PID     int    // as the machine sees it
	Command string // its command line
}

func (p Process) is(program string) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	return err == nil && path == program
}

// isShipped reports whether it is mlfnode, wherever on the host the program was put.
func (p Process) isShipped() bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	return err == nil && filepath.Base(path) == "mlfnode"
}

// first returns the first process of the host, or 0 while it is off.
func (h *Host) first() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.power == nil {
		return 0
	}
	return h.power.init.Process.Pid
}

// Processes lists what runs on the host, without the first process, which is part of the harness,
// and without zombies.
func (h *Host) Processes() []Process {
	first := h.first()
	if first == 0 {
		return nil
	}
	return processesBeside(first)
}

func processesBeside(first int) []Process {
	var found []Process
	home, err := pidNamespace(first)
	if err != nil {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is valid
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == first {
			continue
		}
		if ns, err := pidNamespace(pid); err != nil || ns != home {
			continue
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && len(line) > 0 {
			command := bytes.TrimSpace(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
			found = append(found, Process{PID: pid, Command: string(command)})
		}
	}
	return found
}

func pidNamespace(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)) }

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// cgroupsOf returns the cgroup folders that agents on the host have made for their trials. Unlike
// on a real machine, they survive a power cut.
func cgroupsOf(first int) []string {
	var dirs []string
	for _, p := range processesBeside(first) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/cgroup", p.PID)) // the pattern is valid
		for _, file := range files {
			text, _ := os.ReadFile(file) // it may have ended
			dirs = append(dirs, agentFolders(string(text))...)
		}
	}
	return dirs
}

// agentFolders parses /proc/<pid>/cgroup, see cgroups(7).
func agentFolders(text string) []string {
	var dirs []string
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		at := strings.Index(parts[2], "/mlfnode-")
		if at < 0 {
			continue
		}
		end := len(parts[2])
		if more := strings.IndexByte(parts[2][at+1:], '/'); more >= 0 {
			end = at + 1 + more
		}
		for _, controller := range append(strings.Split(parts[1], ","), "unified", "") {
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", controller, parts[2][:end]))
		}
	}
	return dirs
}

func removeCgroups(dirs []string) {
	for _, dir := range dirs {
		slots, _ := filepath.Glob(filepath.Join(dir, "*/")) // the pattern is valid
		for _, slot := range append(slots, dir) {
			_ = unix.Rmdir(slot) // most do not exist in every hierarchy
		}
	}
}

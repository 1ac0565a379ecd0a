package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

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

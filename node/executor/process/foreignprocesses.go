package process

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/processid"
)

// foreignProcesses are processes of other users that attempts have left behind, as sudo makes them.
// Without cgroups v2 nobody here may end them, so an attempt that has only such processes left ends
// without them, and no later attempt takes them for its own.
type foreignProcesses struct {
	mu    sync.Mutex
	known map[processid.ID]bool // true: a program, which this process still has to await
}

const (
	// foreignTime is how long after its grace an attempt waits for processes of other users to end
	// by themselves.
	foreignTime = 10 * time.Second
	// maxForeign bounds the processes that an outcome names.
	maxForeign = 5
)

// errForeign is for a program of another user, which an attempt that was stopped has left behind.
var errForeign = errors.New("the program runs as another user")

// areForeign reports whether this process may signal none of some processes.
func areForeign(pids []int) bool {
	return len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool { return unix.Kill(pid, 0) != unix.EPERM })
}

// exclude leaves out the processes that are known.
func (f *foreignProcesses) exclude(pids []int) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, program := range f.known {
		switch {
		case id.Alive():
			pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == id.PID })
			continue
		case program:
			_, _ = syscall.Wait4(id.PID, nil, syscall.WNOHANG, nil)
		}
		delete(f.known, id)
	}
	return pids
}

// add has processes known from now on and describes them.
func (f *foreignProcesses) add(pids []int, program int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []string
	for _, pid := range pids {
		id, ok := processid.Of(pid)
		if !ok {
			continue
		}
		if f.known == nil {
			f.known = map[processid.ID]bool{}
		}
		f.known[id] = pid == program
		words = append(words, describe(pid))
	}
	if len(words) > maxForeign {
		words = append(words[:maxForeign], fmt.Sprintf("%d more", len(words)-maxForeign))
	}
	return strings.Join(words, ", ")
}

// describe names a process for a person: "4711 (sleep, user root)".
func describe(pid int) string {
	name, _ := readProc(pid, "comm", nil)
	owner := "unknown"
	if info, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
		owner = strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
		if u, err := user.LookupId(owner); err == nil {
			owner = u.Username
		}
	}
	return fmt.Sprintf("%d (%s, user %s)", pid, strings.TrimSpace(string(name)), owner)
}

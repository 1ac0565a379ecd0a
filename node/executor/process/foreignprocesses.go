package process

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mlfnode/node/processid"
	"mlfnode/node/procfs"
)

// foreignProcesses are processes of other users that attempts have left behind, for example through
// sudo. Without cgroups v2 this process can't kill them, so an attempt that has only such processes
// left ends without them, and no later attempt counts them as its own.
type foreignProcesses struct {
	mu    sync.Mutex
	known map[processid.ID]bool // true: a program that this process still has to reap
}

const (
	// foreignTimeout is how long after its grace an attempt waits for processes of other users to
	// end by themselves.
	foreignTimeout = 10 * time.Second
	// maxForeign limits the number of processes that an outcome names.
	maxForeign = 5
)

// errForeign means that a stopped attempt has left its program behind because it belongs to another
// user.
var errForeign = errors.New("the program runs as another user")

// exclude removes the known processes from pids.
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

// add registers processes and describes them.
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

// describe describes a process for a person: "4711 (sleep, user root)".
func describe(pid int) string {
	owner := "unknown"
	if uid, ok := procfs.Owner(pid); ok {
		owner = strconv.Itoa(uid)
		if u, err := user.LookupId(owner); err == nil {
			owner = u.Username
		}
	}
	return fmt.Sprintf("%d (%s, user %s)", pid, strings.TrimSpace(procfs.Text(pid, "comm")), owner)
}

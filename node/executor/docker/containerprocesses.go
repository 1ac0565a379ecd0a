package docker

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"mlfnode/node/poll"
	"mlfnode/node/processid"
	"mlfnode/node/procfs"
)

// runVar is the environment variable that identifies the processes of a container.
const runVar = "MLF_RUN="

// containerProcesses finds and signals the processes of one container through the kernel, without
// the engine.
type containerProcesses struct {
	container string                       // its name
	id        string                       // the engine's ID; set before the container starts
	init      atomic.Pointer[processid.ID] // see first
}

// first returns the container's first process: the zero ID while it is unknown, and forever if it
// ended before it became known.
func (c *containerProcesses) first() processid.ID {
	if p := c.init.Load(); p != nil {
		return *p
	}
	return processid.ID{}
}

// learn records the first process that the engine reports. An engine on another machine reports
// PIDs of that machine, so only a process that verifiably belongs to the container counts.
func (c *containerProcesses) learn(state *container.State) {
	if p, ok := processid.Of(state.Pid); state.Pid > 0 && ok && c.owns(state.Pid) {
		c.init.Store(&p)
	}
}

// owns reports whether a process belongs to the container, by its cgroup or its environment. A
// process that can't be read does not.
func (c *containerProcesses) owns(pid int) bool {
	return c.id != "" && strings.Contains(procfs.Text(pid, "cgroup"), c.id) ||
		procfs.MatchEnviron(pid, runVar+c.container) == procfs.EnvironWith
}

// killAll kills everything that runs in the container and returns when nothing does. The engine may
// be unavailable for long.
func (c *containerProcesses) killAll(ctx context.Context) {
	for pause := (poll.Backoff{First: minSampleInterval, Longest: maxSampleInterval}); c.kill() && pause.Sleep(ctx); {
	}
}

// kill kills the first process and all others that the container owns, and reports whether there
// were any. It searches /proc, because the engine may have gone away before it named the first.
func (c *containerProcesses) kill() (found bool) {
	first := c.first()
	_ = first.Signal(unix.SIGKILL)
	found = first.Alive() // even one that can't be killed
	for _, pid := range procfs.PIDs() {
		p, ok := processid.Of(pid)
		if ok && c.owns(pid) && p.Signal(unix.SIGKILL) == nil { // a process that can't be killed is not ours
			found = true
		}
	}
	return found
}

// receivesSignals reports whether a signal to the container's init reaches the program. Until the
// init installs its handlers, signals are lost, since the first process of a PID namespace gets
// only those that it handles. It installs them before it forks its child, which becomes the leader
// of a process group first of all.
func (c *containerProcesses) receivesSignals() bool {
	if !c.first().Alive() {
		return true
	}
	main, known := c.main()
	return !known || main.PID > 0
}

// main returns the main program, or the zero ID before it has begun. known is false where the
// kernel does not list children (CONFIG_PROC_CHILDREN).
func (c *containerProcesses) main() (_ processid.ID, known bool) {
	first := c.first().PID
	children, known := procfs.Read(first, filepath.Join("task", strconv.Itoa(first), "children"), make([]byte, 0, 4096))
	for child := range strings.FieldsSeq(string(children)) {
		pid, _ := strconv.Atoi(child)
		group, err := unix.Getpgid(pid)
		if p, ok := processid.Of(pid); ok && err == nil && group == pid {
			return p, true
		}
	}
	return processid.ID{}, known
}

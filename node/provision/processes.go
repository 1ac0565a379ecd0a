package provision

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node"
	"mlfnode/node/poll"
	"mlfnode/node/processid"
	"mlfnode/node/procfs"
)

// process is a process of this machine.
type process struct {
	processid.ID
	program string // path of its executable
	args    []string
}

// runsCommand reports whether the process runs one of these commands of mlfnode.
func (p process) runsCommand(commands ...string) bool {
	return len(p.args) > 1 && slices.Contains(commands, p.args[1])
}

// processes lists this user's processes that run the installed program, or one that was installed
// before, except this process and its ancestors.
func processes(p protocol.Layout) []process {
	program, err := filepath.EvalSymlinks(p.Program())
	if err != nil {
		program = p.Program()
	}
	return userProcesses(func(q process) bool { return q.program == program || q.program == p.Program() })
}

// nodeProcesses lists, besides these, the processes of a node that was started by hand from another
// program: the one that holds the state folder, and the shims of its trials.
func nodeProcesses(p protocol.Layout) []process {
	found := processes(p)
	holder, folders := node.Holder(p.State()), node.ShimFolders(p.State())
	return append(found, userProcesses(func(q process) bool {
		shim := q.runsCommand(node.ShimCommand, node.FormerShimCommand) &&
			slices.ContainsFunc(folders, func(dir string) bool { return slices.Contains(q.args, dir) })
		return (shim || q.PID == holder) && !slices.ContainsFunc(found, func(f process) bool { return f.PID == q.PID })
	})...)
}

// selfAndAncestors returns the IDs of this process and of the ancestors that cannot be the node: in
// a container it may be process 1, from which the shell that runs this descends.
func selfAndAncestors() map[int]bool {
	own := procfs.SelfAndAncestors()
	if os.Getpid() != 1 {
		delete(own, 1)
	}
	return own
}

// userProcesses lists this user's processes that match, except this process and its ancestors.
func userProcesses(kind func(process) bool) []process {
	own := selfAndAncestors()
	var found []process
	for _, pid := range procfs.PIDs() {
		exe, err := os.Readlink(procfs.Path(pid, "exe"))
		if err != nil || own[pid] {
			continue
		}
		if uid, ok := procfs.Owner(pid); !ok || uid != os.Getuid() {
			continue
		}
		id, ok := processid.Of(pid)
		if q := (process{id, strings.TrimSuffix(exe, " (deleted)"), procfs.Args(pid)}); ok && kind(q) {
			found = append(found, q)
		}
	}
	return found
}

// agentProcesses lists the processes that run the node itself.
func agentProcesses(p protocol.Layout) []process {
	return slices.DeleteFunc(processes(p), func(q process) bool {
		return !q.runsCommand("master", "join") || !slices.Contains(q.args, p.State())
	})
}

// terminate signals the listed processes, and kills those that are still there after the timeout.
func terminate(ctx context.Context, list func() []process, signal unix.Signal, limit time.Duration) {
	for _, p := range list() {
		_ = p.Signal(signal) // it may have exited
	}
	if poll.Within(ctx, limit, pollInterval, func() bool { return len(list()) == 0 }) {
		return
	}
	poll.Within(ctx, killTimeout, pollInterval, func() bool {
		for _, p := range list() {
			_ = p.Signal(unix.SIGKILL)
		}
		return len(list()) == 0
	})
}

// killTimeout bounds the time until a killed process is gone.
const killTimeout = time.Second

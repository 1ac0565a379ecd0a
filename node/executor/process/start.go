package process

import (
	"context"
	"errors"
	"syscall"
	"time"

	"mlfnode/node/executor"
	"mlfnode/node/poll"
)

// busyWait limits how long to wait for a program that is open for writing. The process that has
// just written it may hold it for a moment longer than it seems: a process that is forked meanwhile
// has a copy of each open file until it executes its own program.
const busyWait = time.Second

// start starts the program and returns when that was. It must be called on the slot's thread, so
// that the child is born in the slot's v1 cgroup and dies with that thread if the options say so.
func (s *slot) start(
	ctx context.Context, a *executor.Attempt, file string, env []string, out *output,
) (pid int, started time.Time, err error) {
	fork := func() (int, error) { return s.forkExec(a, file, env, out) }
	deadline := time.Now().Add(busyWait)
	for pause := time.Millisecond; ; pause *= 2 {
		started = time.Now()
		if s.tree != nil {
			pid, err = s.tree.start(fork)
		} else {
			pid, err = fork()
		}
		if !errors.Is(err, syscall.ETXTBSY) || started.After(deadline) {
			return pid, started, err
		}
		if !poll.Sleep(ctx, pause) {
			return 0, started, context.Cause(ctx)
		}
	}
}

// forkExec starts the program.
func (s *slot) forkExec(a *executor.Attempt, file string, env []string, out *output) (pid int, err error) {
	sys := &syscall.SysProcAttr{Setsid: true}
	if !s.executor.noPidfd {
		sys.PidFD = &out.pidfd
	}
	if s.executor.options.DieWithAgent {
		sys.Pdeathsig = syscall.SIGKILL
	}
	if s.cgroup != nil && s.cgroup.group.unified {
		sys.UseCgroupFD, sys.CgroupFD = true, int(s.cgroup.folders[0])
	}
	return syscall.ForkExec(file, a.Argv, &syscall.ProcAttr{
		Dir: a.Dir, Env: env, Sys: sys,
		Files: []uintptr{s.executor.null.Fd(), s.descriptor(out.stdout), s.descriptor(out.stderr)},
	})
}

// descriptor returns fd. A stream that is not wanted is read-only, so that writing to it fails
// immediately.
func (s *slot) descriptor(fd int) uintptr {
	if fd < 0 {
		return s.executor.null.Fd()
	}
	return uintptr(fd)
}

package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// refused is the outcome of an attempt whose program never ran, with the exit code that a shell
// would give.
func refused(class grid.Class, reason string, code int) executor.Outcome {
	o := executor.Refused(class, reason)
	o.ExitCode = code
	return o
}

// runAttempt runs a to its end. It must be called on the slot's thread.
func (s *slot) runAttempt(ctx context.Context, a *executor.Attempt) executor.Outcome {
	if ctx.Err() != nil {
		return executor.Unstarted(ctx)
	}
	if len(a.Argv) == 0 {
		return refused(grid.ClassStart, "the command is empty; name a program", executor.ExitNotFound)
	}
	run := s.executor.marks.next()
	env := grid.MergeEnviron(a.Env, []string{tokenVar + s.executor.options.Token, run})
	file, err := s.programs.lookup(a, env)
	if err != nil {
		return refusal(a, "", err)
	}
	if s.cgroup != nil {
		if err := s.cgroup.replaceKilled(); err != nil {
			return refused(grid.ClassNode, "its cgroup can't be made: "+err.Error(), executor.ExitNotRunnable)
		}
	}
	if err := s.memory.setLimit(a.Memory); err != nil {
		s.executor.log.Warn("memory limit not set", "limit", a.Memory, "err", err)
	}
	base := s.memory.resetPeak()
	out, err := s.executor.newOutput(a)
	if err != nil {
		return refusal(a, file, err)
	}
	defer out.close()
	pid, started, err := s.start(ctx, a, file, env, out)
	if err != nil && ctx.Err() != nil {
		return executor.Unstarted(ctx)
	}
	if err != nil {
		return refusal(a, file, err)
	}
	return s.follow(ctx, a, &attemptTree{slot: s, program: pid, mark: run, started: started, out: out}, base)
}

// follow follows a started program to its end and removes what is left of its tree.
func (s *slot) follow(ctx context.Context, a *executor.Attempt, t *attemptTree, base int64) executor.Outcome {
	if s.tree != nil {
		defer s.tree.removeProgram(t.program)
	}
	sampler := s.sampleUsage(t.program)
	if a.Started != nil {
		a.Started(executor.Program{PID: t.program})
	}
	w := newWatchdog(ctx, t, a)
	err := t.out.await(t.program)
	end := time.Now()
	w.programEnded()
	sampler.stop()
	left := 0
	if err == nil && !t.isEmpty() {
		grace := a.GracePeriod()
		if w.stopped.hard {
			grace = 0
		}
		left = t.killLeftovers(grace, a.Kill)
	}
	t.out.drain()
	var status syscall.WaitStatus
	var usage syscall.Rusage
	ended := !errors.Is(err, errForeign)
	if ended {
		_, err = wait(t.program, &status, &usage)
	}
	if ended && err != nil {
		return refused(grid.ClassLost, "its process was awaited by another part of this program", grid.NoExit)
	}
	if s.cgroup != nil {
		if err := s.cgroup.removeNested(); err != nil {
			s.executor.log.Warn("cgroups that a program created could not be removed", "err", err)
		}
	}
	o := executor.Outcome{Start: t.started, End: end, ExitCode: grid.NoExit, Leftovers: left, Foreign: t.foreign}
	o.Usage = s.usage(&usage, end.Sub(t.started), max(s.memory.peakUse()-base, sampler.peak))
	if ended {
		o.ExitCode, o.Class, o.Reason = ending(status)
	}
	oom := s.memory.oomKilled()
	switch {
	case w.stopped.class != "":
		o.Class, o.Reason = w.stopped.class, w.stopped.reason
	case oom && o.Class != grid.ClassNone:
		o.Class, o.Reason = grid.ClassMemory, executor.OutOfMemory(a.Memory, o.Usage.Memory)
	case !s.memory.countsOOMKills() && status.Signaled() && status.Signal() == unix.SIGKILL &&
		sampler.recentOOMKill(machineKills()):
		o.Class, o.Reason = grid.ClassMemory,
			"probably ran out of memory: it was killed by SIGKILL while the kernel was killing processes for lack of memory on this machine"
	}
	t.out.Conclude(&o)
	return o
}

// ending converts a wait status to an exit code, a class and a reason.
func ending(ws syscall.WaitStatus) (code int, class grid.Class, reason string) {
	switch {
	case ws.Signaled():
		reason = "killed by " + executor.SignalName(ws.Signal())
		if ws.CoreDump() {
			reason += " (core dumped)"
		}
		return executor.SignalBase + int(ws.Signal()), grid.ClassSignal, reason
	case ws.ExitStatus() != 0:
		return ws.ExitStatus(), grid.ClassExit, fmt.Sprintf("exit code %d", ws.ExitStatus())
	}
	return 0, grid.ClassNone, ""
}

func wait(pid int, status *syscall.WaitStatus, usage *syscall.Rusage) (int, error) {
	for {
		got, err := syscall.Wait4(pid, status, 0, usage)
		if err != syscall.EINTR {
			return got, err
		}
	}
}

// usage adds up the resources that the attempt used; peak is the memory that was measured
// otherwise. The kernel's value for a process starts at the memory of its parent, since both share
// it until the program is loaded (exec_mmap in fs/exec.c); up to our own size it says nothing. So
// without cgroups the memory of a small, short program stays unknown, which is 0.
func (s *slot) usage(r *syscall.Rusage, wall time.Duration, peak int64) grid.Usage {
	var self unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &self) // it can't fail: the arguments are valid
	if r.Maxrss > self.Maxrss {
		peak = max(peak, r.Maxrss<<10)
	}
	return grid.Usage{Wall: wall.Microseconds(), CPU: micros(r.Utime) + micros(r.Stime), Memory: max(peak, 0)}
}

func micros(t syscall.Timeval) int64 { return int64(t.Sec)*1_000_000 + int64(t.Usec) }

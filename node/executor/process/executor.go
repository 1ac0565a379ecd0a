// Package process runs attempts as processes of this machine. The processes of an attempt are held
// together by a cgroup for each slot where cgroups can be written; elsewhere they are found by
// their session, parents and environment.
//
// What an agent that was killed has left behind is found by Reap at the next start, by a token in
// the environment of every program.
package process

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"mlfnode/node/executor"

	"golang.org/x/sys/unix"
)

// Options are the settings of an Executor.
type Options struct {
	// Token identifies the agent's state folder: letters, digits, - and _. It stays the same over
	// restarts of the agent, and no two agents that run on one machine at the same time share one.
	Token string
	// DieWithAgent makes the kernel kill the program (not the processes that it has started) when
	// the agent dies.
	DieWithAgent bool
	// Cgroups selects how trees are held together.
	Cgroups Cgroups
	// Strays is the file in which processes that hide their token are recorded for Reap, where
	// there are no cgroups; empty means none.
	Strays string
}

// Executor runs attempts as plain processes of this machine. Each gets its own session and, where
// cgroups can be written, sits in its slot's cgroup. Without cgroups this process becomes a
// subreaper, see prctl(2); then only one Executor may be in use at a time, and no other part of the
// program may start children in sessions of their own.
type Executor struct {
	options      Options
	log          *slog.Logger
	null         *os.File
	cgroup       *agentCgroup  // nil without cgroups
	tree         *processTree  // nil with cgroups
	stallTimeout time.Duration // how long a program waits for its output files
	noPidfd      bool          // for tests: as on a kernel without pidfd
	marks        *runMarks
	foreign      foreignProcesses
	closing      sync.Once
}

var _ executor.Executor = (*Executor)(nil)

// New creates an executor. Reap must be called before, once for each start of the agent. The caller
// closes the executor after its slots.
func New(o Options, log *slog.Logger) (*Executor, error) {
	if o.Token == "" || strings.Trim(strings.ToLower(o.Token), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return nil, fmt.Errorf("token %q must be letters, digits, - and _", o.Token)
	}
	// Programs must not inherit files that this process inherited without close-on-exec. Old
	// kernels lack the call.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open input of programs: %w", err)
	}
	p := &Executor{
		options: o, log: log.With("component", "executor"), null: null, stallTimeout: executor.StallTimeout,
		marks: newRunMarks(),
	}
	if o.Cgroups != CgroupsOff {
		p.cgroup = openAgentCgroup(o.Cgroups, o.Token)
	}
	if p.cgroup == nil {
		if p.tree, err = newProcessTree(p); err != nil {
			return nil, errors.Join(err, null.Close())
		}
	}
	restoreSignals()
	p.log.Debug("process trees", "held", p.TreeTracking())
	return p, nil
}

// restoreSignals makes programs start with the default action of SIGHUP and SIGINT even if this
// process was started with them ignored, as by nohup and a shell's &: an ignored signal stays
// ignored in children, a caught one does not. The caught signals are dropped, so nothing changes
// for this process. Package runtime catches the other signals by itself.
func restoreSignals() {
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// TreeTracking describes how process trees are held together and whether memory limits are
// enforced, for logs and for `doctor`.
func (e *Executor) TreeTracking() string {
	switch {
	case e.cgroup == nil:
		return "sessions and a token, no cgroups; memory limits are not enforced"
	case e.cgroup.unified && !e.cgroup.limits():
		return "cgroup v2; memory limits are not enforced"
	case e.cgroup.unified:
		return "cgroup v2"
	case !e.cgroup.limits():
		return "cgroup v1; memory limits are not enforced"
	}
	return "cgroup v1"
}

// Limits reports whether Attempt.Memory is enforced here.
func (e *Executor) Limits() bool { return e.cgroup != nil && e.cgroup.limits() }

// Slot creates a slot. Run is fastest on the goroutine that created it, which should do little
// else: with cgroups v1 that goroutine stays locked to its thread until it calls Close.
func (e *Executor) Slot() (executor.Slot, error) {
	s := &slot{executor: e, tree: e.tree}
	if err := s.enterCgroup(); err != nil {
		return nil, fmt.Errorf("make slot: %w", err)
	}
	return s, nil
}

// StartHelper calls start, which starts a process of the node itself and returns its id: a process
// that belongs to no attempt although it has a session of its own.
func (e *Executor) StartHelper(start func() (pid int, err error)) error {
	if e.tree == nil {
		_, err := start()
		return err
	}
	_, err := e.tree.start(start)
	if err == nil {
		e.tree.attempts.Add(-1) // it is not an orphan, and it is not an attempt
	}
	return err
}

// Close removes what the executor has created. Its slots must be closed before.
func (e *Executor) Close() (err error) {
	e.closing.Do(func() {
		err = e.null.Close()
		if e.tree != nil {
			e.tree.loadavg.close()
			err = errors.Join(err, removeStrays(e.options.Strays))
		}
		if e.cgroup != nil {
			err = errors.Join(err, e.cgroup.close())
		}
	})
	return err
}

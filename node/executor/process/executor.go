// Package process runs attempts as processes of this machine. The processes that an attempt starts are held together by a cgroup for
// each slot, where cgroups can be written, and are found by their sessions, parents and environment elsewhere.
//
// What an agent that was killed itself has left behind is found by Reap at the next start, by a token in the environment of
// every program.
package process

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/node/executor"

	"golang.org/x/sys/unix"
)

// Variables that every program gets, so that what it started can be told from other processes.
const (
	tokenVar = "MLF_TOKEN=" // the node's state folder, the same over restarts of the agent
	runVar   = "MLF_RUN="   // this attempt alone
)

// ProcessOptions are the settings of a Process executor.
type Options struct {
	// Token names the agent's state folder: letters, digits, - and _. It is the same over restarts of the agent, and no two
	// agents that run at a time on one machine have the same.
	Token string
	// DieWithAgent has the kernel kill the program (not what the program has started) when the agent dies.
	DieWithAgent bool
	// Cgroups chooses how trees are held together.
	Cgroups Cgroups
	// Strays is the file for what Reap is to know of processes that hide their token, where there are no cgroups; empty is none.
	Strays string
}

func (o Options) validate() error {
	if o.Token == "" || strings.Trim(strings.ToLower(o.Token), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Errorf("token %q must be letters, digits, - and _", o.Token)
	}
	return nil
}

// Executor runs attempts as plain processes of this machine. Each gets its own session and, where cgroups can be written,
// sits in its slot's cgroup. Without cgroups this process becomes a subreaper, see prctl(2); then one Executor is to be
// used at a time, and no other part of the program may start children in sessions of their own.
type Executor struct {
	options      Options
	log          *slog.Logger
	null         *os.File
	cgroup       *agentCgroup  // nil without cgroups
	tree         *processTree  // nil with cgroups
	startID      string        // makes MLF_RUN unique over restarts
	stallTimeout time.Duration // how long a program waits for its output files
	noPidfd      bool          // for tests: as on a kernel that tells the end of a program by wait alone
	foreign      foreignProcesses

	slotCount    atomic.Int64 // made so far
	attemptCount atomic.Int64 // run so far

	mu          sync.Mutex
	closed      bool
	slotThreads map[int]struct{} // threads that sit in the cgroup of a slot
}

var _ executor.Executor = (*Executor)(nil)

// NewProcess makes an executor. Reap is to be called before, once for each start of the agent. The caller closes it, after
// its slots.
func New(o Options, log *slog.Logger) (*Executor, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	// Files that this process inherited without close-on-exec are no business of the programs. Old kernels lack the call.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open input of programs: %w", err)
	}
	p := &Executor{
		options: o, log: log.With("component", "executor"), null: null, slotThreads: map[int]struct{}{}, stallTimeout: executor.StallTime,
		startID: strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.Itoa(os.Getpid()),
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

// restoreSignals sees to it that programs start with the default action of SIGHUP and SIGINT although this process was started
// with them ignored, as nohup and a shell's & do: an ignored signal stays ignored in children, a caught one does not. What is
// caught goes nowhere, for good, so for this process nothing changes. Package runtime catches the other signals by itself.
func restoreSignals() {
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// Held says how process trees are held together and whether memory limits are enforced, for logs and for `doctor`.
func (p *Executor) TreeTracking() string {
	switch {
	case p.cgroup == nil:
		return "sessions and a token, no cgroups; memory limits are not enforced"
	case p.cgroup.unified && !p.cgroup.limits():
		return "cgroup v2; memory limits are not enforced"
	case p.cgroup.unified:
		return "cgroup v2"
	case !p.cgroup.limits():
		return "cgroup v1; memory limits are not enforced"
	}
	return "cgroup v1"
}

// Limits reports whether Attempt.Memory is enforced here.
func (p *Executor) Limits() bool { return p.cgroup != nil && p.cgroup.limits() }

// Slot makes a slot. Run is fastest on the goroutine that made it, which should do little else: with cgroups v1 it stays
// locked to its thread until it calls Close.
func (p *Executor) Slot() (executor.Slot, error) {
	s := &slot{executor: p, tree: p.tree}
	if err := s.enterCgroup(int(p.slotCount.Add(1))); err != nil {
		return nil, fmt.Errorf("make slot: %w", err)
	}
	return s, nil
}

// StartHelper calls start, which starts a process of the node's own and gives its id: a process that belongs to no attempt
// although it is in a session of its own.
func (p *Executor) StartHelper(start func() (pid int, err error)) error {
	if p.tree == nil {
		_, err := start()
		return err
	}
	_, err := p.tree.start(start)
	if err == nil {
		p.tree.attempts.Add(-1) // it is known not to be an orphan, and it is not an attempt
	}
	return err
}

// Close removes what the executor made. Its slots must be closed before.
func (p *Executor) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := p.null.Close()
	if p.tree != nil {
		err = errors.Join(err, p.tree.close())
	}
	if p.cgroup != nil {
		err = errors.Join(err, p.cgroup.close())
	}
	return err
}

// claimThread makes a thread the home of one slot.
func (p *Executor) claimThread(tid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.slotThreads[tid]; taken {
		return false
	}
	p.slotThreads[tid] = struct{}{}
	return true
}

func (p *Executor) releaseThread(tid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.slotThreads, tid)
}

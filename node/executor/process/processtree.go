package process

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/procfs"
)

// processTree finds the processes that an attempt has started, where there are no cgroups. This
// process is then a subreaper: it becomes the parent of a process whose own parent ends, so a
// process can't escape by forking twice.
//
// A process belongs to an attempt if it is in the session of the attempt's program, carries the
// attempt's MLF_RUN in its environment, or has a parent that belongs. A program that clears its
// environment, leaves its session and loses its parent belongs to the only running attempt; while
// several run, its owner is unknown and it is left to the last of them. Cgroups need no such guess.
type processTree struct {
	self    int
	foreign *foreignProcesses // left behind by earlier attempts
	log     *slog.Logger
	strays  strays
	session int
	loadavg counter // its last field is the process id that was allocated last

	mu       sync.Mutex
	programs map[int]struct{} // programs of running attempts; their slots reap them

	attempts  atomic.Int64 // running or being started
	startLock sync.RWMutex // read-locked while a program is started and registered; locked to reap an unknown process
}

// Scanning the process ids that were allocated during an attempt is cheaper than reading all of
// /proc, as long as they are few and can't have wrapped around.
const (
	fewPids     = 256
	shortEnough = 500 * time.Millisecond
)

func newProcessTree(p *Executor) (*processTree, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("become subreaper", err)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return nil, os.NewSyscallError("read own session", err)
	}
	return &processTree{
		self: os.Getpid(), foreign: &p.foreign, session: session, log: p.log,
		loadavg:  openCounter("/proc", "loadavg", unix.O_RDONLY),
		programs: map[int]struct{}{}, strays: strays{file: p.options.Strays, token: tokenVar + p.options.Token},
	}, nil
}

// start starts a program and registers it before anyone can mistake it for an orphan.
func (t *processTree) start(start func() (int, error)) (int, error) {
	t.attempts.Add(1)
	t.startLock.RLock()
	defer t.startLock.RUnlock()
	pid, err := start()
	if err != nil {
		t.attempts.Add(-1)
		return 0, err
	}
	t.mu.Lock()
	t.programs[pid] = struct{}{}
	t.mu.Unlock()
	return pid, nil
}

func (t *processTree) removeProgram(pid int) {
	t.mu.Lock()
	delete(t.programs, pid)
	t.mu.Unlock()
	t.attempts.Add(-1)
}

func (t *processTree) isProgram(pid int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.programs[pid]
	return ok
}

// members lists the processes of the attempt whose program is main, except main itself, and reaps
// those that have ended. doubt means that some process can't be assigned yet because it is just
// loading another program.
func (t *processTree) members(main int, run string, started time.Time) (found []int, doubt bool) {
	var rest []procfs.Stat
	for _, pid := range t.foreign.exclude(t.candidates(main, started)) {
		if pid == t.self || t.isProgram(pid) {
			continue
		}
		if s, ok := procfs.ReadStat(pid); ok && !t.reapOrphan(s) && !s.Dead {
			rest = append(rest, s)
		}
	}
	ours := map[int]bool{main: true}
	for grew := true; grew; { // a parent may be listed after its children
		grew, doubt = false, false
		left := rest[:0]
		for _, s := range rest {
			mark := procfs.EnvironWithout
			if s.Session != main && !ours[s.Parent] {
				mark = procfs.MatchEnviron(s.PID, run)
			}
			switch {
			case s.Session == main || ours[s.Parent] || mark == procfs.EnvironWith || t.isOrphanOfOnlyAttempt(s):
				ours[s.PID], grew = true, true
				found = append(found, s.PID)
			default:
				doubt = doubt || (mark == procfs.EnvironUnknown && t.isOrphan(s) && !t.isNewProgram(s.PID))
				left = append(left, s)
			}
		}
		rest = left
	}
	return found, doubt
}

// candidates returns the processes that may belong to the attempt, judging by their ids.
func (t *processTree) candidates(main int, started time.Time) []int {
	loadavg := bytes.TrimSpace(t.loadavg.read(make([]byte, 128)))
	last := int(leadingNumber(loadavg[bytes.LastIndexByte(loadavg, ' ')+1:]))
	if last < main || last-main > fewPids || time.Since(started) > shortEnough {
		return procfs.PIDs()
	}
	pids := make([]int, 0, last-main)
	for pid := main + 1; pid <= last; pid++ {
		if _, err := unix.Getpgid(pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isOrphan reports whether s became our child by losing its parent. Children that other parts of
// this program started are in our own session.
func (t *processTree) isOrphan(s procfs.Stat) bool {
	return s.Parent == t.self && s.Session != t.session
}

// isOrphanOfOnlyAttempt reports whether s is an orphan and only one attempt is running. The cheap
// count comes first: an unknown child is usually the program of another attempt that is just being
// started.
func (t *processTree) isOrphanOfOnlyAttempt(s procfs.Stat) bool {
	return t.isOrphan(s) && t.attempts.Load() == 1 && !t.isNewProgram(s.PID) && t.attempts.Load() == 1
}

// isNewProgram waits for programs that are being started and reports whether pid is one of them.
func (t *processTree) isNewProgram(pid int) bool {
	t.startLock.Lock()
	defer t.startLock.Unlock()
	return t.isProgram(pid)
}

// reapOrphan reaps an orphan that has ended.
func (t *processTree) reapOrphan(s procfs.Stat) bool {
	if !s.Dead || !t.isOrphan(s) {
		return false
	}
	t.startLock.Lock()
	defer t.startLock.Unlock()
	if t.isProgram(s.PID) {
		return false
	}
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(s.PID, &ws, syscall.WNOHANG, nil)
	return err == nil && pid == s.PID
}

// scan reaps every zombie that has become our child, since a long attempt may leave many before it
// ends, and records what Reap could not find by itself. It does nothing if another attempt has
// scanned since.
func (t *processTree) scan(since time.Time) {
	t.strays.mu.Lock()
	defer t.strays.mu.Unlock()
	if t.strays.scanned.After(since) {
		return
	}
	t.strays.scanned = time.Now()
	var live []procfs.Stat
	for _, pid := range procfs.PIDs() {
		switch s, ok := procfs.ReadStat(pid); {
		case !ok || pid == t.self:
		case !s.Dead:
			live = append(live, s)
		case !t.isProgram(pid):
			t.reapOrphan(s)
		}
	}
	if err := t.strays.record(t.descendants(live)); err != nil {
		t.log.Warn("stray processes could not be recorded", "err", err)
	}
}

// descendants returns the direct and indirect children of the programs of attempts, as far as they
// are our children or have a parent that is known.
func (t *processTree) descendants(live []procfs.Stat) (found []procfs.Stat) {
	ours := map[int]bool{}
	for grew := true; grew; {
		grew = false
		left := live[:0]
		for _, s := range live {
			main := t.isProgram(s.PID)
			switch {
			case !main && !ours[s.Parent] && !t.isOrphan(s):
				left = append(left, s)
				continue
			case !main:
				found = append(found, s)
			}
			ours[s.PID], grew = true, true
		}
		live = left
	}
	return found
}

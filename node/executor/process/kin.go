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
)

// kin finds what an attempt has started where there are no cgroups. This process is then a subreaper: a process whose
// parent ends becomes our child, so it can't get out of sight by forking twice.
//
// A process belongs to an attempt when it is in the session of the attempt's program, carries the attempt's MLF_RUN in its
// environment, or has a parent that belongs. A program that clears its environment, leaves its session and loses its parent
// belongs to the only attempt that runs; while others run it can't be told whose it is and is left to the last of them.
// Cgroups need no such guess.
type kin struct {
	self    int
	foreign *foreigners // no attempt's
	log     *slog.Logger
	strays  strays
	session int
	loadavg counter // its last field is the process id that was given out last

	mu    sync.Mutex
	mains map[int]struct{} // programs of running attempts: their slots await them

	active atomic.Int64 // attempts that run or are being started
	births sync.RWMutex // read-held from before a program's start until it is in mains; held to await a stranger
}

// Scanning the ids that were given out during an attempt is cheaper than reading /proc whole, while they are few and can't
// have wrapped round.
const (
	fewPids     = 256
	shortEnough = 500 * time.Millisecond
)

func newKin(p *Executor) (*kin, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("become subreaper", err)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return nil, os.NewSyscallError("read own session", err)
	}
	return &kin{
		self: os.Getpid(), foreign: &p.foreign, session: session, log: p.log, loadavg: openCounter("/proc", "loadavg", unix.O_RDONLY),
		mains: map[int]struct{}{}, strays: strays{file: p.options.Strays, token: tokenVar + p.options.Token},
	}, nil
}

// bear starts a program so that it is known as one before anybody can take it for an orphan.
func (k *kin) bear(start func() (int, error)) (int, error) {
	k.active.Add(1)
	k.births.RLock()
	defer k.births.RUnlock()
	pid, err := start()
	if err != nil {
		k.active.Add(-1)
		return 0, err
	}
	k.mu.Lock()
	k.mains[pid] = struct{}{}
	k.mu.Unlock()
	return pid, nil
}

func (k *kin) remove(pid int) {
	k.mu.Lock()
	delete(k.mains, pid)
	k.mu.Unlock()
	k.active.Add(-1)
}

func (k *kin) isMain(pid int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.mains[pid]
	return ok
}

// members lists the processes of the attempt whose program is main, without main itself, and awaits those that have ended.
// In doubt there is a process that can't be told yet, because it is just loading another program.
func (k *kin) members(main int, run string, started time.Time) (found []int, doubt bool) {
	candidates := k.foreign.without(k.candidates(main, started))
	if len(candidates) == 0 {
		return nil, false
	}
	return k.related(main, run, candidates)
}

// candidates gives the processes that may belong, by their ids.
func (k *kin) candidates(main int, started time.Time) []int {
	last := k.lastPid()
	if last < main || last-main > fewPids || time.Since(started) > shortEnough {
		return processes()
	}
	pids := make([]int, 0, last-main)
	for pid := main + 1; pid <= last; pid++ {
		if _, err := unix.Getpgid(pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (k *kin) lastPid() int {
	var buf [128]byte
	n, err := unix.Pread(int(k.loadavg), buf[:], 0)
	if err != nil {
		return 0
	}
	b := bytes.TrimSpace(buf[:n])
	return int(number(b[bytes.LastIndexByte(b, ' ')+1:]))
}

// related picks those that belong. Parents may come after their children, so it goes on until nothing changes.
func (k *kin) related(main int, run string, candidates []int) (found []int, doubt bool) {
	rest := k.strangers(candidates)
	ours := map[int]bool{main: true}
	for grew := true; grew; {
		grew, doubt = false, false
		left := rest[:0]
		for _, s := range rest {
			mark := absentMark
			if s.session != main && !ours[s.ppid] {
				mark = marked(s.pid, run)
			}
			switch {
			case s.session == main || ours[s.ppid] || mark == rightMark || k.lastOrphan(s):
				ours[s.pid], grew = true, true
				found = append(found, s.pid)
			default:
				doubt = doubt || (mark == noEnviron && k.isOrphan(s) && !k.justBorn(s.pid))
				left = append(left, s)
			}
		}
		rest = left
	}
	return found, doubt
}

// strangers reads the live processes among pids that are not programs of attempts, and awaits the dead.
func (k *kin) strangers(pids []int) (rest []stat) {
	for _, pid := range pids {
		if pid == k.self || k.isMain(pid) {
			continue
		}
		if s, ok := readStat(pid); ok && !k.reap(s) && !s.dead {
			rest = append(rest, s)
		}
	}
	return rest
}

// isOrphan reports whether s became our child by losing its parent. Children that other parts of this program started are
// in our own session.
func (k *kin) isOrphan(s stat) bool { return s.ppid == k.self && s.session != k.session }

// lastOrphan reports whether s is an orphan and only one attempt is running. The count comes first: it is cheap, and mostly
// an unknown child is the program of another attempt that is just being started.
func (k *kin) lastOrphan(s stat) bool {
	return k.isOrphan(s) && k.active.Load() == 1 && !k.justBorn(s.pid) && k.active.Load() == 1
}

// justBorn waits for programs that are being started and reports whether pid is one of them.
func (k *kin) justBorn(pid int) bool {
	k.births.Lock()
	defer k.births.Unlock()
	return k.isMain(pid)
}

// reap awaits an orphan that has ended.
func (k *kin) reap(s stat) bool {
	if !s.dead || !k.isOrphan(s) {
		return false
	}
	k.births.Lock()
	defer k.births.Unlock()
	if k.isMain(s.pid) {
		return false
	}
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(s.pid, &ws, syscall.WNOHANG, nil)
	return err == nil && pid == s.pid
}

// look awaits every zombie that has become our child, as a long attempt may leave many before it ends, and records what Reap could
// not find by itself. It does nothing when another attempt has had it look since.
func (k *kin) look(since time.Time) {
	k.strays.mu.Lock()
	defer k.strays.mu.Unlock()
	if k.strays.looked.After(since) {
		return
	}
	k.strays.looked = time.Now()
	var live []stat
	for _, pid := range processes() {
		switch s, ok := readStat(pid); {
		case !ok || pid == k.self:
		case !s.dead:
			live = append(live, s)
		case !k.isMain(pid):
			k.reap(s)
		}
	}
	if err := k.strays.record(k.descendants(live)); err != nil {
		k.log.Warn("processes that hide could not be recorded", "err", err)
	}
}

// descendants gives what the programs of attempts have started, and what that has started, as far as it is our child or has a parent.
func (k *kin) descendants(live []stat) (found []stat) {
	ours := map[int]bool{}
	for grew := true; grew; {
		grew = false
		left := live[:0]
		for _, s := range live {
			main := k.isMain(s.pid)
			switch {
			case !main && !ours[s.ppid] && !k.isOrphan(s):
				left = append(left, s)
				continue
			case !main:
				found = append(found, s)
			}
			ours[s.pid], grew = true, true
		}
		live = left
	}
	return found
}

// close forgets what was recorded: no attempt runs any more.
func (k *kin) close() error {
	k.loadavg.close()
	return removeStrays(k.strays.file)
}

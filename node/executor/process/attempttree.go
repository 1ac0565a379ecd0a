package process

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// attemptTree is the process tree of one running attempt.
type attemptTree struct {
	slot    *slot
	program int    // the program; not reaped yet, so its id can't be reused
	mark    string // MLF_RUN=…
	started time.Time
	out     *output
	foreign string // describes the processes of other users that are left
}

// others lists the processes that run beside the program. doubt means that there may be more, which
// another scan will soon tell.
func (t *attemptTree) others() (pids []int, doubt bool) {
	if t.slot.cgroup != nil {
		pids = slices.DeleteFunc(t.slot.cgroup.members(), func(pid int) bool { return pid == t.program })
		listed := len(pids)
		// A process can move between nested cgroups while they are read. v1 has no count of its own
		// to check an empty list against.
		c := t.slot.cgroup
		doubt = listed == 0 && c.group.unified && c.population != absent && !c.isEmpty()
		return t.slot.executor.foreign.exclude(pids), doubt
	}
	return t.slot.tree.members(t.program, t.mark, t.started)
}

// isEmpty reports whether the program, which has ended, was the last of its tree.
func (t *attemptTree) isEmpty() bool {
	if t.slot.cgroup != nil && t.slot.cgroup.isEmpty() {
		return true
	}
	pids, doubt := t.others()
	return len(pids) == 0 && !doubt
}

// terminate asks all processes to end. A stopped process must be continued to receive the signal.
func (t *attemptTree) terminate(pids []int) {
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGTERM)
		unix.Kill(pid, unix.SIGCONT)
	}
}

// kill kills all processes, including those being forked right now where the kernel can do that;
// elsewhere the caller repeats it.
func (t *attemptTree) kill(pids []int) {
	if t.slot.cgroup != nil && t.slot.cgroup.kill() {
		return
	}
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// abandonForeign gives up processes that all belong to other users, and reports whether they do.
func (t *attemptTree) abandonForeign(pids []int) bool {
	if len(pids) == 0 || slices.ContainsFunc(pids, func(pid int) bool { return unix.Kill(pid, 0) != unix.EPERM }) {
		return false // one of them can be signalled
	}
	program := t.program
	if t.slot.tree != nil {
		program = 0 // processTree reaps it
	}
	t.foreign = t.slot.executor.foreign.add(pids, program)
	t.slot.executor.log.Warn("processes of other users outlive their attempt", "processes", t.foreign)
	return true
}

// A tree that was told to end is scanned often at first, since most programs end immediately.
const (
	firstScanPause  = time.Millisecond
	maxScanInterval = 50 * time.Millisecond
	maxOrphan       = 2 * time.Second // the longest grace of processes that outlived their program
	maxForking      = 100 * time.Millisecond
	// how long to look for a process that can't be seen; loading a program takes less
	maxDoubt = 50 * time.Millisecond
)

// killLeftovers ends the processes that outlived the program and returns their number once they are
// gone.
func (t *attemptTree) killLeftovers(grace time.Duration, hard <-chan struct{}) (n int) {
	seen := map[int]bool{}
	begun := time.Now()
	deadline := begun.Add(min(grace, maxOrphan))
	foreign := deadline.Add(foreignTimeout)
	limit := maxDoubt
	if t.slot.cgroup != nil {
		limit = maxOrphan + time.Second // a process that moves between cgroups is killed with the cgroup
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for pause := firstScanPause; ; pause = min(2*pause, maxScanInterval) {
		select {
		case <-look.C:
		case <-hard:
			deadline, hard = time.Time{}, nil
		}
		t.out.drainSome() // a process that waits for room in its pipe could not end
		pids, doubt := t.others()
		if len(pids) == 0 && (!doubt || time.Since(begun) > limit) {
			return len(seen)
		}
		var fresh []int
		for _, pid := range pids {
			if !seen[pid] {
				seen[pid] = true
				fresh = append(fresh, pid)
			}
		}
		if time.Now().Before(deadline) {
			t.terminate(fresh)
		} else {
			t.kill(pids)
			if time.Now().After(foreign) && t.abandonForeign(pids) {
				return len(seen)
			}
		}
		look.Reset(pause)
	}
}

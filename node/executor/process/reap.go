package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/cgroups"
	"mlfnode/node/processid"
	"mlfnode/node/procfs"
)

// DeadAgent identifies the processes of an agent that is gone.
type DeadAgent struct {
	Token   string
	Cgroups string // what cgroups.Own returned there; empty means what it returns here
	Strays  string // its Options.Strays
}

// Reap kills every process that a dead agent has left behind, and removes its cgroups. It returns
// the number of processes once they are gone, and an error if ctx ended first. It spares this
// process and its ancestors, since a trial may itself run mlfnode, and, with a warning, processes
// of other users that it may not kill.
func Reap(ctx context.Context, dead DeadAgent, log *slog.Logger) (n int, err error) {
	all := cgroups.Hierarchies(cmp.Or(dead.Cgroups, cgroups.Own()))
	strays := readStrays(dead.Strays)
	spared := procfs.SelfAndAncestors()
	seen := map[int]bool{}
	foreign := false
	look := time.NewTimer(0)
	defer look.Stop()
	quiet := 0
	for pause := firstScanPause; quiet < quietScans; pause = min(2*pause, maxScanInterval) {
		select {
		case <-ctx.Done():
			return len(seen), fmt.Errorf("kill leftover processes: %w", context.Cause(ctx))
		case <-look.C:
		}
		quiet++
		pids := findLeftovers(all, dead.Token, strays, spared)
		killed := killUnified(all, dead.Token, spared)
		for _, pid := range pids {
			if unix.Kill(pid, unix.SIGKILL) == unix.EPERM && !killed[pid] {
				log.Warn("a process of another user, left behind by an earlier agent, keeps running",
					"process", describe(pid))
				foreign, spared[pid] = true, true
				continue
			}
			quiet = 0
			if !seen[pid] {
				log.Info("killing a process that an earlier agent left behind", "pid", pid)
			}
			seen[pid] = true
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it is our child when we are its subreaper
		}
		look.Reset(pause)
	}
	for _, h := range all {
		if err = removeCgroupTree(filepath.Join(h.Dir, folderName(dead.Token))); err != nil {
			break
		}
		if h.Unified {
			delegationOf(h.Dir, dead.Token, memoryController).removeStale()
		}
	}
	if err != nil && foreign {
		log.Warn("cgroups with processes of other users are left behind", "err", err)
		err = nil
	}
	return len(seen), errors.Join(err, removeStrays(dead.Strays))
}

// killUnified makes the kernel kill the processes in the token's cgroup, whoever they belong to,
// where it can (cgroups v2), and returns them.
func killUnified(all map[string]cgroups.Hierarchy, token string, spared map[int]bool) map[int]bool {
	killed := map[int]bool{}
	for _, h := range all {
		dir := filepath.Join(h.Dir, folderName(token))
		pids := treePids(dir)
		if !h.Unified || len(pids) == 0 || slices.ContainsFunc(pids, func(pid int) bool { return spared[pid] }) {
			continue
		}
		if writeFile(filepath.Join(dir, "cgroup.kill"), "1") == nil {
			for _, pid := range pids {
				killed[pid] = true
			}
		}
	}
	return killed
}

// quietScans is how many scans in a row must find nothing: a process that is just loading a program
// shows no environment.
const quietScans = 3

// findLeftovers lists the live processes of the token: by their cgroup, their environment, the
// agent's record and their parents.
func findLeftovers(
	all map[string]cgroups.Hierarchy, token string, strays []processid.ID, spared map[int]bool,
) (found []int) {
	ours := map[int]bool{}
	for _, id := range strays {
		ours[id.PID] = ours[id.PID] || id.Alive()
	}
	for _, h := range all {
		for _, pid := range treePids(filepath.Join(h.Dir, folderName(token))) {
			ours[pid] = true
		}
	}
	var rest []procfs.Stat
	for _, pid := range procfs.PIDs() {
		if s, ok := procfs.ReadStat(pid); ok && !s.Dead && !spared[pid] {
			rest = append(rest, s)
		}
	}
	for grew := true; grew; {
		grew = false
		left := rest[:0]
		for _, s := range rest {
			if ours[s.PID] || (ours[s.Parent] && !spared[s.Parent]) ||
				procfs.MatchEnviron(s.PID, tokenVar+token) == procfs.EnvironWith {
				ours[s.PID], grew = true, true
				found = append(found, s.PID)
				continue
			}
			left = append(left, s)
		}
		rest = left
	}
	return found
}

package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/processid"
)

// DeadAgent identifies the processes of an agent that is gone.
type DeadAgent struct {
	Token   string
	Cgroups string // what OwnCgroups returned there; empty means what it returns here
	Strays  string // its Options.Strays
}

// Reap kills every process that a dead agent has left behind, and removes its cgroups. It returns
// the number of processes once they are gone, and an error if ctx ended first. It spares this
// process and its ancestors, since a trial may itself run mlfnode, and, with a warning, processes
// of other users that it may not kill.
func Reap(ctx context.Context, dead DeadAgent, log *slog.Logger) (n int, err error) {
	all := hierarchiesOf(cmp.Or(dead.Cgroups, OwnCgroups()))
	strays := readStrays(dead.Strays)
	spared := ancestors()
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
				log.Warn("a process of another user, left behind by an earlier agent, keeps running", "process", describe(pid))
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
	if err = removeFolders(all, dead.Token); err != nil && foreign {
		log.Warn("cgroups with processes of other users are left behind", "err", err)
		err = nil
	}
	return len(seen), errors.Join(err, removeStrays(dead.Strays))
}

// killUnified makes the kernel kill the processes in the token's cgroup, whoever they belong to,
// where it can (cgroups v2), and returns them.
func killUnified(all map[string]hierarchy, token string, spared map[int]bool) map[int]bool {
	killed := map[int]bool{}
	for _, h := range all {
		dir := filepath.Join(h.own, folderName(token))
		pids := treePids(dir)
		if !h.unified || len(pids) == 0 || slices.ContainsFunc(pids, func(pid int) bool { return spared[pid] }) {
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

// ancestors returns this process and its ancestors.
func ancestors() map[int]bool {
	pids := map[int]bool{}
	for pid := os.Getpid(); pid > 0 && !pids[pid]; {
		pids[pid] = true
		s, _ := readStat(pid)
		pid = s.ppid
	}
	return pids
}

// findLeftovers lists the live processes of the token: by their cgroup, their environment, the
// agent's record and their parents.
func findLeftovers(all map[string]hierarchy, token string, strays []processid.ID, spared map[int]bool) (found []int) {
	ours := map[int]bool{}
	for _, id := range strays {
		ours[id.PID] = ours[id.PID] || id.Alive()
	}
	for _, h := range all {
		for _, pid := range treePids(filepath.Join(h.own, folderName(token))) {
			ours[pid] = true
		}
	}
	var rest []stat
	for _, pid := range processes() {
		if s, ok := readStat(pid); ok && !s.dead && !spared[pid] {
			rest = append(rest, s)
		}
	}
	for grew := true; grew; {
		grew = false
		left := rest[:0]
		for _, s := range rest {
			if ours[s.pid] || (ours[s.ppid] && !spared[s.ppid]) || matchEnviron(s.pid, tokenVar+token) == environWith {
				ours[s.pid], grew = true, true
				found = append(found, s.pid)
				continue
			}
			left = append(left, s)
		}
		rest = left
	}
	return found
}

func removeFolders(all map[string]hierarchy, token string) error {
	for _, h := range all {
		if err := removeCgroupTree(filepath.Join(h.own, folderName(token))); err != nil {
			return err
		}
		if h.unified {
			delegationOf(h.own, token, memoryController).removeStale()
		}
	}
	return nil
}

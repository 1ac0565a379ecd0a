package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
)

// A state folder belongs to a cluster from the moment that it holds credentials: the authority of a
// master or the certificate of a worker. Only OpenMaster and OpenWorker make a node of such a
// folder; everything else waits for the node that they run.

// ErrOfCluster is returned by Open and Attach for a folder that belongs to a cluster.
var ErrOfCluster = errors.New("the state folder belongs to a node of a cluster")

// ErrDown is returned by Await when nobody runs the node.
var ErrDown = errors.New("the node is down")

// RoleOf returns the role of a state folder in its cluster, "" if it belongs to none.
func RoleOf(dir string) grid.NodeRole { return trust.RoleIn(membership.TrustDir(dir)) }

// MasterOf returns the last known address of the master of the worker in the folder, "" if it is
// unknown.
func MasterOf(dir string) string {
	k, err := membership.LoadPeers(dir)
	if err != nil {
		return ""
	}
	return k.API[0]
}

const (
	// downTime bounds the wait for the node of a cluster while no process has its folder: a service
	// restarts it in less.
	downTime = 5 * time.Second
	// noticeTime is how long a wait takes before it is reported.
	noticeTime = time.Second
)

// Await opens a session with the node of a folder that belongs to a cluster. It waits for a node
// that is being started, and calls notice once that takes longer; it returns ErrDown when nobody
// starts it.
func Await(ctx context.Context, cfg config.Config, notice func()) (*Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attachTime, ErrDown)
	defer cancel()
	say := time.AfterFunc(noticeTime, notice)
	defer say.Stop()
	var s *Session
	vacant := time.Now()
	err := poll.Until(ctx, attachInterval, func() (bool, error) {
		if s = reach(ctx, cfg.StateDir); s != nil {
			s.cluster = true
			return true, nil
		}
		if Holder(cfg.StateDir) != 0 {
			vacant = time.Now()
		} else if time.Since(vacant) > downTime {
			return false, ErrDown
		}
		return false, nil
	})
	return s, err
}

// unseen is the holder of a folder that is not a visible process of this machine.
const unseen = -1

// Holder returns the process that has locked the folder, 0 for none, and -1 for one that cannot be
// determined. Trying the lock instead would keep a node from starting at that moment.
func Holder(dir string) int {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(dir, lockName), &st) != nil {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 00:2d:5678 0 EOF
		w := strings.Fields(lines.Text())
		if len(w) < 6 || w[1] != "FLOCK" || w[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(w[4]); err == nil && pid > 0 {
			return pid
		}
		return unseen
	}
	return 0
}

// inUse returns an error that says who has a folder whose node does not answer.
func inUse(dir string) error {
	who := "another mlfnode"
	switch pid := Holder(dir); {
	case pid > 0:
		who = fmt.Sprintf("process %d", pid)
	case lastHost(dir) != "":
		who = "an mlfnode on " + lastHost(dir)
	}
	return &api.Error{
		Msg:  fmt.Sprintf("%s uses the state folder %s and does not answer", who, dir),
		Hint: "stop it, or choose another folder with --state-dir",
	}
}

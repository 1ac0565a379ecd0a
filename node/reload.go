package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/node/config"
	"mlfnode/node/master"
	"mlfnode/node/worker"
)

// Name returns the name of the node.
func (n *Node) Name() grid.NodeID { return n.membership.Gossip.Node() }

// Address returns where others reach the gossip of the node, HOST:PORT.
func (n *Node) Address() string {
	own := n.membership.Local()
	return net.JoinHostPort(own.Address, strconv.Itoa(own.Port))
}

// Reload applies the settings that can change while the node runs: what trials may use of the
// machine, what is kept, the crash limit, and how lost nodes are treated. It logs that the others
// need a restart.
func (n *Node) Reload(cfg config.Config) {
	old := &n.cfg
	if old.Cluster.Ports != cfg.Cluster.Ports || old.Cluster.Bind != cfg.Cluster.Bind || old.StateDir != cfg.StateDir ||
		old.Devices.Share != cfg.Devices.Share || !reflect.DeepEqual(old.Engine, cfg.Engine) {
		n.log.Warn("state, bind, ports, engine and gpus.share are taken over at the next start only")
	}
	old.Devices = cfg.Devices
	n.configure(cfg.Machine.CPUs, cfg.Machine.Memory, cfg.Devices)
	if w := n.working(); w != nil {
		w.Devices.SetMachine(n.machine.Latest())
	}
	n.publishDevices()
	n.membership.Gossip.Update(func(s *cluster.Self) { s.CPUs, s.Memory = cfg.Machine.CPUs, cfg.Machine.Memory })
	if n.master != nil {
		n.master.Retain(master.Retention{Sweeps: cfg.Retention.Sweeps, Age: cfg.Retention.Age}, cfg.Cluster.CrashLimit)
		n.master.SetOutage(cfg.Cluster.Outage())
		n.snapshots.SetLimit(cfg.Retention.Checkpoints)
	}
	n.log.Info("node.yaml was reloaded", "cpus", cfg.Machine.CPUs, "memory", cfg.Machine.Memory)
}

// healthTimeout bounds how long the parts of a healthy node take to answer.
const healthTimeout = 10 * time.Second

// Healthy returns an error when a part of the node no longer answers; a watchdog asks it. A master
// that waits for its disk is healthy: after a restart it would wait for the same disk, and its
// trials might not wait for it.
func (n *Node) Healthy() error {
	n.membership.Gossip.Members()
	n.working()
	if n.master == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), healthTimeout) // a watchdog has no context
	defer stop()
	if _, err := n.master.Outstanding(ctx, ""); err != nil && !n.disk.stalled(n.cfg.StateDir, n.log) {
		return fmt.Errorf("the master does not answer itself: %w", err)
	}
	return nil
}

const (
	// StopLimit is the longest that a node takes to stop.
	StopLimit = worker.StopLimit + time.Minute
	// SignInterval is the time between two signs of life of a node that stops, and SignPatience the
	// longest time without one.
	SignInterval = time.Second
	SignPatience = 15 * time.Second
)

// signFile is in the state folder. A node that stops touches it as long as it waits for its trials
// to end.
const signFile = "stopping"

// SignStop announces, by a call of extend and by a file in the state folder, that this node waits
// for its trials before it stops: they have their grace period, and what they saved is stored. It
// returns when ended is closed.
func (n *Node) SignStop(ended <-chan struct{}, extend func(time.Duration) error) {
	file := filepath.Join(n.cfg.StateDir, signFile)
	defer os.Remove(file)
	tick := time.NewTicker(SignInterval)
	defer tick.Stop()
	for until := time.Now().Add(StopLimit); time.Now().Before(until); {
		if w := n.working(); w != nil && w.Busy() {
			if err := errors.Join(extend(SignPatience), os.WriteFile(file, nil, 0o600)); err != nil {
				n.log.Warn("announce that the node waits for its trials", "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

// StopSign returns when the node of this state folder last said that it waits for its trials before
// it stops, zero for never.
func StopSign(stateDir string) time.Time {
	info, err := os.Stat(filepath.Join(stateDir, signFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

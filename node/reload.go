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
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/config"
	"mlfnode/node/master"
	"mlfnode/node/worker"
)

// Name is the name of the node.
func (n *Node) Name() grid.NodeID { return n.membership.Gossip.Node() }

// Address is where others reach the node's gossip, HOST:PORT.
func (n *Node) Address() string {
	own := n.membership.Local()
	return net.JoinHostPort(own.Address, strconv.Itoa(own.Port))
}

// Reload takes over what can be changed while the node runs: what trials may use of the machine, what is kept, the crash limit,
// and what is made of lost nodes. The rest needs a restart, which is logged.
func (n *Node) Reload(cfg config.Config) {
	old := &n.cfg
	if old.Cluster.Ports != cfg.Cluster.Ports || old.Cluster.Bind != cfg.Cluster.Bind || old.StateDir != cfg.StateDir ||
		old.Devices.Share != cfg.Devices.Share || !reflect.DeepEqual(old.Engine, cfg.Engine) {
		n.log.Warn("state, bind, ports, engine and gpus.share are taken over at the next start only")
	}
	n.mu.Lock()
	n.cfg.Machine.CPUs, n.cfg.Machine.Memory = cfg.Machine.CPUs, cfg.Machine.Memory // for a worker that is yet to be made
	n.cfg.Devices = cfg.Devices
	n.mu.Unlock()
	n.resize()
	if w := n.working(); w != nil {
		w.SetPolicy(cfg.Devices)
		w.SetMachine(n.machine.Latest())
	}
	n.publishDevices()
	n.membership.Gossip.Update(func(s *cluster.Self) { s.CPUs, s.Memory = cfg.Machine.CPUs, cfg.Machine.Memory })
	if n.master != nil {
		n.master.Retain(master.Retention{Sweeps: cfg.Retention.Sweeps, Age: cfg.Retention.Age}, cfg.Cluster.CrashLimit)
		n.master.SetOutage(cfg.Cluster.Outage())
		n.snapshots.SetLimit(cfg.Retention.Checkpoints)
	}
	n.log.Info("node.yaml was read again", "cpus", cfg.Machine.CPUs, "memory", cfg.Machine.Memory)
}

// resize has the worker, once there is one, use what the settings say.
func (n *Node) resize() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.worker != nil {
		n.worker.Resize(inventory.Machine{CPUs: n.cfg.Machine.CPUs, Memory: n.cfg.Machine.Memory})
	}
}

// healthLimit is how long the parts of a healthy node may take to answer.
const healthLimit = 10 * time.Second

// Healthy returns an error when a part of the node does not answer any more. It is what a watchdog asks. A master that waits for its disk
// is healthy: started again it would wait for the same disk, and its trials might not wait for it.
func (n *Node) Healthy() error {
	n.membership.Gossip.Members()
	n.working()
	if n.master == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), healthLimit) // a watchdog has no context
	defer stop()
	if _, err := n.master.Outstanding(ctx, ""); err != nil && !n.disk.stalled(n.cfg.StateDir, n.log) {
		return fmt.Errorf("the master does not answer itself: %w", err)
	}
	return nil
}

// Hurry kills the programs that Close waits for.
func (n *Node) Hurry() {
	if w := n.working(); w != nil {
		w.SkipGrace()
	}
}

const (
	// StopLimit is how long a node takes to stop at most.
	StopLimit = worker.StopLimit + time.Minute
	// SignInterval is the time between two signs of a node that stops, and SignPatience how long it may give none.
	SignInterval = time.Second
	SignPatience = 15 * time.Second
)

// signFile is touched by a node that stops, in its state folder, as long as it sees trials to their ends.
const signFile = "stopping"

// SignStop says that this node is waiting for its trials before it stops, by tell and by a file in the state folder: the trials
// have their grace, and what they saved is stored. It returns when ended is closed.
func (n *Node) SignStop(ended <-chan struct{}, tell func(time.Duration) error) {
	file := filepath.Join(n.cfg.StateDir, signFile)
	defer os.Remove(file)
	tick := time.NewTicker(SignInterval)
	defer tick.Stop()
	for until := time.Now().Add(StopLimit); time.Now().Before(until); {
		if w := n.working(); w != nil && w.Busy() {
			if err := errors.Join(tell(SignPatience), os.WriteFile(file, nil, 0o600)); err != nil {
				n.log.Warn("nobody could be told that trials come to their ends", "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

// StopSign is when the node with this state folder has last said that it stops and sees trials to their ends; zero for never.
func StopSign(stateDir string) time.Time {
	info, err := os.Stat(filepath.Join(stateDir, signFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Stop says that the end of this node was asked for, so that Close ends its programs. Without it they wait for the node's next agent.
func (n *Node) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopping.Store(true)
	if n.worker != nil {
		n.worker.SetHandover(false)
	}
}

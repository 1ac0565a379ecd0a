package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/trust"
	"mlfnode/node"
	"mlfnode/node/doctor"
	"mlfnode/node/executor/shim"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
	"mlfnode/node/processid"
	"mlfnode/node/procfs"
	"mlfnode/node/service"
)

// stopTimeout bounds a stop while the node does not signal that it is finishing trials.
const stopTimeout = 5 * time.Second

// stopTimedOut reports whether a node that was asked to stop is overdue: it has the time patience,
// or longer while it signals that it is finishing trials.
func stopTimedOut(p protocol.Layout, asked time.Time, patience time.Duration) bool {
	took, sign := time.Since(asked), node.StopSign(p.State())
	return took > node.StopLimit || took > patience && time.Since(sign) > node.SignPatience
}

// stop stops everything that start has started.
func (o *operation) stop(ctx context.Context) error {
	if !o.isNodeFolder() { // no lock file is left behind then
		return o.stopAll(ctx)
	}
	return o.withLock(o.stopAll)(ctx)
}

func (o *operation) stopAll(ctx context.Context) error {
	if err := o.refuseOtherMachine(); err != nil {
		return err
	}
	was, held := o.observe(ctx), o.heldPorts()
	left := len(nodeProcesses(o.Layout)) > 0
	failed := []error{o.stopAgent(ctx, was.Service)}
	o.stopManualAgent(ctx)
	terminate(ctx, func() []process { return nodeProcesses(o.Layout) }, unix.SIGTERM, time.Second)
	failed = append(failed, o.killOrphanedTrials(ctx), removeIfPresent(recordFile(o.Layout)))
	if was.Service != "" || was.Active || left {
		o.recordChange("stopped")
	}
	seen := o.observe(ctx)
	seen.Leftovers = o.leftovers(seen, held)
	if err := errors.Join(failed...); err != nil {
		o.response.Observed = &seen
		return err
	}
	if o.request.Leave && seen.Role == string(trust.Worker) {
		if err := membership.Leave(o.State()); err != nil {
			return err
		}
		seen.Joined = false
	}
	if o.request.PutAside {
		if err := o.putMovedStateAside(ctx); err != nil {
			return err
		}
		seen = o.observe(ctx)
	}
	if o.request.Purge && len(seen.Leftovers) == 0 {
		if err := o.purge(); err != nil {
			return err
		}
		seen = o.observe(ctx)
	}
	o.response.Observed = &seen
	return nil
}

// stopAgent stops the agent, and uninstalls the service that keeps it running.
func (i *installation) stopAgent(ctx context.Context, how string) error {
	i.stopBackground(ctx)
	if how != protocol.ServiceSystem && how != protocol.ServiceUser {
		return nil
	}
	_, err := service.Uninstall(ctx, service.Manager{User: how == protocol.ServiceUser}, false)
	return err
}

// stopBackground stops the supervisor, which stops the agent.
func (i *installation) stopBackground(ctx context.Context) {
	own, _ := findSupervisor(i.Layout)
	if own.PID == 0 {
		return
	}
	_ = own.Signal(unix.SIGTERM) // it may have exited
	asked := time.Now()
	poll.Within(ctx, node.StopLimit, pollInterval, func() bool { return !own.Alive() || stopTimedOut(i.Layout, asked, stopTimeout) })
	if !own.Alive() {
		return
	}
	_ = own.Signal(unix.SIGKILL)
	poll.Within(ctx, killTimeout, pollInterval, func() bool { return !own.Alive() })
	terminate(ctx, func() []process { return agentProcesses(i.Layout) }, unix.SIGKILL, killTimeout)
}

// stopManualAgent stops an agent that nothing keeps running, such as one that was started by hand.
func (i *installation) stopManualAgent(ctx context.Context) {
	own, ok := processid.Of(node.Holder(i.State()))
	if !ok || procfs.SelfAndAncestors()[own.PID] || own.Signal(unix.SIGTERM) != nil {
		return
	}
	asked := time.Now()
	poll.Within(ctx, node.StopLimit, pollInterval, func() bool { return !own.Alive() || stopTimedOut(i.Layout, asked, stopTimeout) })
}

// killOrphanedTrials kills trials that have lost their shims.
func (i *installation) killOrphanedTrials(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(i.State(), "token"))
	if err != nil {
		return nil // no node has run here
	}
	if err := shim.Reap(ctx, node.ShimFolders(i.State()), strings.TrimSpace(string(b)), slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("end trials: %w", err)
	}
	return nil
}

// leftovers lists what is still there and should not be.
func (i *installation) leftovers(seen protocol.Observed, held []doctor.TakenPort) []string {
	var left []string
	for _, p := range nodeProcesses(i.Layout) {
		left = append(left, fmt.Sprintf("process %d (%s)", p.PID, strings.TrimSpace(strings.Join(p.args, " "))))
	}
	if seen.Service != "" {
		left = append(left, "the service "+service.Unit)
	}
	for _, t := range i.stillHeld(held) {
		left = append(left, "port "+t.Port+", "+t.Cause)
	}
	return left
}

// heldPorts lists the ports that the node holds.
func (i *installation) heldPorts() []doctor.TakenPort {
	cfg, err := i.loadConfig(i.Config())
	if err != nil {
		return nil // no node runs with such settings
	}
	own, _ := i.ports(cfg, true)
	return own
}

// stillHeld lists the ports that the node held and that are still in use, except those that another
// program is known to have taken.
func (i *installation) stillHeld(held []doctor.TakenPort) []doctor.TakenPort {
	cfg, err := i.loadConfig(i.Config())
	if err != nil || len(held) == 0 {
		return nil
	}
	own, others := i.ports(cfg, true)
	unseen := slices.DeleteFunc(others, func(t doctor.TakenPort) bool { return t.PID > 0 })
	return slices.DeleteFunc(append(own, unseen...), func(t doctor.TakenPort) bool {
		return !slices.ContainsFunc(held, func(h doctor.TakenPort) bool { return h.Port == t.Port })
	})
}

// isNodeFolder reports whether the root folder belongs to a node.
func (i *installation) isNodeFolder() bool {
	for _, file := range []string{i.Program(), supervisorLock(i.Layout), filepath.Join(i.State(), "token")} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

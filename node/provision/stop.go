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
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/doctor"
	"mlfnode/node/executor/shim"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
	"mlfnode/node/processid"
	"mlfnode/node/service"
)

// stopTimeout bounds a stop while the node does not signal that it is finishing trials.
const stopTimeout = 5 * time.Second

// stopTimedOut reports whether a node that was asked to stop is overdue: it has the time limit,
// or longer while it signals that it is finishing trials.
func stopTimedOut(p protocol.Layout, asked time.Time, limit time.Duration) bool {
	took, sign := time.Since(asked), node.StopSign(p.State())
	return took > node.StopLimit || took > limit && time.Since(sign) > node.SignPatience
}

// stop stops everything that start has started.
func (o *operation) stop(ctx context.Context) error {
	if err := refuseOtherMachine(o.Layout); err != nil {
		return err
	}
	was := o.observe(ctx)
	var held []doctor.TakenPort
	if cfg, err := o.loadConfig(o.Config()); err == nil { // no node runs with settings that can't be loaded
		held, _ = ports(o.Layout, cfg, true)
	}
	left := len(nodeProcesses(o.Layout)) > 0
	failed := []error{stopAgent(ctx, o.Layout, was.Service)}
	own, ok := processid.Of(node.Holder(o.State())) // an agent that nothing keeps running, such as one started by hand
	if ok && !selfAndAncestors()[own.PID] && own.Signal(unix.SIGTERM) == nil {
		awaitStop(ctx, o.Layout, own)
	}
	terminate(ctx, func() []process { return nodeProcesses(o.Layout) }, unix.SIGTERM, time.Second)
	if token, err := os.ReadFile(filepath.Join(o.State(), "token")); err == nil { // a node has run here
		// Trials may have lost their shims.
		err := shim.Reap(ctx, node.ShimFolders(o.State()), strings.TrimSpace(string(token)),
			slog.New(slog.DiscardHandler))
		if err != nil {
			failed = append(failed, fmt.Errorf("end trials: %w", err))
		}
	}
	failed = append(failed, removeIfPresent(recordFile(o.Layout)))
	if was.Service != "" || was.Active || left {
		o.recordChange("stopped")
	}
	seen := o.observe(ctx)
	seen.Leftovers = o.leftovers(seen, held)
	if err := errors.Join(failed...); err != nil {
		o.response.Observed = &seen
		return err
	}
	if o.request.Leave && seen.Role == grid.Worker {
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
func stopAgent(ctx context.Context, p protocol.Layout, how string) error {
	if own, _ := findSupervisor(p); own.PID > 0 {
		_ = own.Signal(unix.SIGTERM) // it may have exited
		awaitStop(ctx, p, own)
		if own.Alive() {
			_ = own.Signal(unix.SIGKILL)
			poll.Within(ctx, killTimeout, pollInterval, func() bool { return !own.Alive() })
			terminate(ctx, func() []process { return agentProcesses(p) }, unix.SIGKILL, killTimeout)
		}
	}
	if how != protocol.ServiceSystem && how != protocol.ServiceUser {
		return nil
	}
	_, err := service.Uninstall(ctx, service.Manager{User: how == protocol.ServiceUser}, false)
	return err
}

// awaitStop waits until a process that was asked to stop has ended or is overdue.
func awaitStop(ctx context.Context, p protocol.Layout, own processid.ID) {
	asked := time.Now()
	poll.Within(ctx, node.StopLimit, pollInterval, func() bool {
		return !own.Alive() || stopTimedOut(p, asked, stopTimeout)
	})
}

// leftovers lists what is still there after a stop and should not be. held are the ports that the
// node held before.
func (i *installation) leftovers(seen protocol.Observed, held []doctor.TakenPort) []string {
	var left []string
	for _, p := range nodeProcesses(i.Layout) {
		left = append(left, fmt.Sprintf("process %d (%s)", p.PID, strings.TrimSpace(strings.Join(p.args, " "))))
	}
	if seen.Service != "" {
		left = append(left, "the service "+service.Unit)
	}
	cfg, err := i.loadConfig(i.Config())
	if err != nil || len(held) == 0 {
		return left
	}
	own, others := ports(i.Layout, cfg, true)
	// not taken by another program
	unknown := slices.DeleteFunc(others, func(t doctor.TakenPort) bool { return t.PID > 0 })
	for _, t := range append(own, unknown...) {
		if slices.ContainsFunc(held, func(h doctor.TakenPort) bool { return h.Port == t.Port }) {
			left = append(left, "port "+t.Port+", "+t.Cause)
		}
	}
	return left
}

// isNodeFolder reports whether the root folder belongs to a node.
func isNodeFolder(p protocol.Layout) bool {
	for _, file := range []string{p.Program(), supervisorLock(p), filepath.Join(p.State(), "token")} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

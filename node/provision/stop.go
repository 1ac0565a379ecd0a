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
	"mlfnode/node/config"
	"mlfnode/node/doctor"
	"mlfnode/node/executor/shim"
	"mlfnode/node/processid"
	"mlfnode/node/service"
)

// stopPatience is how long a node that stops may take while it does not say that it sees trials to their ends.
const stopPatience = 5 * time.Second

// hangs reports whether a node that was asked to stop has not done so for longer than it may: patience, or for as long as it says that it
// sees trials to their ends.
func hangs(p protocol.Layout, asked time.Time, patience time.Duration) bool {
	took, sign := time.Since(asked), node.StopSign(p.State())
	return took > node.StopLimit || took > patience && time.Since(sign) > node.SignPatience
}

// stop ends everything that start has started.
func (w *work) stop(ctx context.Context) error {
	if !w.marked() { // so nothing is put there, either
		return w.stopAll(ctx)
	}
	return w.locked(w.stopAll)(ctx)
}

func (w *work) stopAll(ctx context.Context) error {
	if err := w.elsewhere(); err != nil {
		return err
	}
	was, held := w.see(ctx), w.held()
	left := len(ofNode(w.Layout)) > 0
	failed := []error{w.endAgent(ctx, was.Service)}
	w.endHolder(ctx)
	end(ctx, func() []process { return ofNode(w.Layout) }, unix.SIGTERM, time.Second)
	failed = append(failed, w.reap(ctx), removeFile(recordFile(w.Layout)))
	if was.Service != "" || was.Active || left {
		w.did("stopped")
	}
	seen := w.see(ctx)
	seen.Leftovers = w.left(seen, held)
	if err := errors.Join(failed...); err != nil {
		w.reply.Observed = &seen
		return err
	}
	if w.order.Leave && seen.Role == string(trust.Worker) {
		if err := node.Leave(config.Config{StateDir: w.State()}); err != nil {
			return err
		}
		seen.Joined = false
	}
	if w.order.PutAside {
		if err := w.putAside(ctx); err != nil {
			return err
		}
		seen = w.see(ctx)
	}
	if w.order.Purge && len(seen.Leftovers) == 0 {
		if err := w.purge(); err != nil {
			return err
		}
		seen = w.see(ctx)
	}
	w.reply.Observed = &seen
	return nil
}

// endAgent ends the agent that is kept running in this way, and takes its service away.
func (w *work) endAgent(ctx context.Context, how string) error {
	w.stopBackground(ctx)
	if how != protocol.ServiceSystem && how != protocol.ServiceUser {
		return nil
	}
	_, err := service.Uninstall(ctx, service.Home{User: how == protocol.ServiceUser}, false)
	return err
}

// stopBackground ends the supervisor, which ends the agent.
func (w *work) stopBackground(ctx context.Context) {
	own, _ := supervisor(w.Layout)
	if own.PID == 0 {
		return
	}
	_ = own.Signal(unix.SIGTERM) // it may be gone
	asked := time.Now()
	until(ctx, node.StopLimit, func() bool { return !own.Alive() || hangs(w.Layout, asked, stopPatience) })
	if !own.Alive() {
		return
	}
	_ = own.Signal(unix.SIGKILL)
	until(ctx, killPatience, func() bool { return !own.Alive() })
	end(ctx, func() []process { return agents(w.Layout) }, unix.SIGKILL, killPatience)
}

// endHolder ends an agent that nobody keeps running, as one that was started by hand.
func (w *work) endHolder(ctx context.Context) {
	own, ok := processid.Of(node.Holder(w.State()))
	if !ok || slices.Contains(lineage(), own.PID) || own.Signal(unix.SIGTERM) != nil {
		return
	}
	asked := time.Now()
	until(ctx, node.StopLimit, func() bool { return !own.Alive() || hangs(w.Layout, asked, stopPatience) })
}

// reap kills trials that have lost their shims.
func (w *work) reap(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(w.State(), "token"))
	if err != nil {
		return nil // no node has run here
	}
	if err := shim.Reap(ctx, node.ShimFolders(w.State()), strings.TrimSpace(string(b)), slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("end trials: %w", err)
	}
	return nil
}

// left lists what should be gone.
func (w *work) left(seen protocol.Observed, held []doctor.Taken) []string {
	var left []string
	for _, p := range ofNode(w.Layout) {
		left = append(left, fmt.Sprintf("process %d (%s)", p.PID, strings.TrimSpace(strings.Join(p.args, " "))))
	}
	if seen.Service != "" {
		left = append(left, "the service "+service.Unit)
	}
	for _, t := range w.stillTaken(held) {
		left = append(left, "port "+t.Port+", "+t.Cause)
	}
	return left
}

// held lists the ports that the node holds.
func (w *work) held() []doctor.Taken {
	cfg, err := w.settings(w.Config())
	if err != nil {
		return nil // no node runs with them
	}
	own, _ := w.ports(cfg, true)
	return own
}

// stillTaken lists the ports that the node held and that are not free, but for those that another program was seen to have taken.
func (w *work) stillTaken(held []doctor.Taken) []doctor.Taken {
	cfg, err := w.settings(w.Config())
	if err != nil || len(held) == 0 {
		return nil
	}
	own, others := w.ports(cfg, true)
	unseen := slices.DeleteFunc(others, func(t doctor.Taken) bool { return t.PID > 0 })
	return slices.DeleteFunc(append(own, unseen...), func(t doctor.Taken) bool {
		return !slices.ContainsFunc(held, func(h doctor.Taken) bool { return h.Port == t.Port })
	})
}

// marked reports whether the root folder is a node's.
func (w *work) marked() bool {
	for _, file := range []string{w.Program(), supervisorLock(w.Layout), filepath.Join(w.State(), "token")} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

// Package provision brings this machine's node to a wanted state. It is the far end of cluster/bootstrap: `mlfnode up` runs
// `mlfnode provision` over ssh, which compares what is wanted of the machine with what is there, and changes what differs.
//
// Every action may be cut off anywhere and done again: files are written beside their place and renamed, what was started is
// recorded only once it runs, and one action at a time holds the lock of the root folder.
package provision

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// Provisioner carries out on this machine what `mlfnode up` and the like ask for.
type Provisioner struct {
	Release string // version of this program
}

// longestOrder bounds the line of an order: a push names every file of a project.
const longestOrder = 256 << 20

// work is one order under way.
type work struct {
	protocol.Layout
	order   protocol.Request
	rest    io.Reader // what follows the order
	release string
	reply   protocol.Response
	program digested // Place.Program as it was last looked at
}

// Serve reads one order, acts, and prints the reply. Its error says that no reply could be given.
func (p Provisioner) Serve(ctx context.Context, action string, in io.Reader, out io.Writer) error {
	w := &work{release: p.Release, reply: protocol.Response{Version: protocol.Version}}
	if err := w.do(ctx, action, in); err != nil {
		w.reply.Problem = problemOf(err)
	}
	line, err := json.Marshal(w.reply)
	if err != nil {
		return fmt.Errorf("write the reply: %w", err)
	}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("print the reply: %w", err)
	}
	return nil
}

// do reads the order and acts.
func (w *work) do(ctx context.Context, action string, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	if err := w.read(r); err != nil {
		return err
	}
	w.rest = r
	acts := map[string]func(context.Context) error{
		protocol.ActionInspect: w.look, protocol.ActionStart: w.locked(w.start),
		protocol.ActionReach: w.reachBack, protocol.ActionStop: w.stop, protocol.ActionReceive: w.locked(w.receive),
	}
	act := acts[action]
	if act == nil {
		return &protocol.Problem{Cause: fmt.Sprintf("the mlfnode on this machine knows no action %q", action), Cure: newer}
	}
	return act(ctx)
}

const newer = "use the same version of mlfnode on every machine"

// read takes the order from the first line.
func (w *work) read(r *bufio.Reader) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > longestOrder {
			return errors.New("the order is too long")
		}
		if err == nil || errors.Is(err, io.EOF) && len(line) > 0 {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("read the order: %w", err)
		}
	}
	if err := json.Unmarshal(line, &w.order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if v := w.order.Version; v > protocol.Version {
		return &protocol.Problem{Cause: fmt.Sprintf("the mlfnode on this machine is older than the one that gave the order (it speaks version %d, not %d)",
			protocol.Version, v), Cure: newer}
	}
	if !path.IsAbs(w.order.Root) || path.Clean(w.order.Root) != w.order.Root || w.order.Root == "/" {
		return fmt.Errorf("the root folder %q is not an absolute path", w.order.Root)
	}
	w.Root = w.order.Root
	return nil
}

// lockPatience is how long an action waits for another one on the same machine.
const lockPatience = 30 * time.Second

// locked has an action that changes something wait for its turn.
func (w *work) locked(act func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		unlock, err := w.lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		return act(ctx)
	}
}

// did notes a change.
func (w *work) did(format string, v ...any) {
	w.reply.Done = append(w.reply.Done, fmt.Sprintf(format, v...))
}

// settings loads node.yaml, with the state folder that belongs to the root.
func (w *work) settings(file string) (config.Config, error) {
	cfg, err := config.Load(file)
	cfg.StateDir, cfg.Version, cfg.Logger = w.State(), w.release, slog.New(slog.DiscardHandler)
	return cfg, err
}

// problemOf gives an error with its cure, where it has one.
func problemOf(err error) *protocol.Problem {
	var refusal *api.Error
	if errors.As(err, &refusal) {
		return &protocol.Problem{Cause: refusal.Msg, Cure: refusal.Hint}
	}
	return protocol.ProblemOf(err)
}

// tries is how often what is waited for is looked at.
const tries = 50 * time.Millisecond

// until calls ok every now and then until it is true; false says that the time was over first.
func until(ctx context.Context, limit time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(tries)
	defer tick.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

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

// maxRequest bounds the line of an order: a push names every file of a project.
const maxRequest = 256 << 20

// operation is one order under way.
type operation struct {
	protocol.Layout
	request  protocol.Request
	body     io.Reader // what follows the order
	release  string
	response protocol.Response
	cached   cachedDigest // Place.Program as it was last looked at
}

// Serve reads one order, acts, and prints the reply. Its error says that no reply could be given.
func (p Provisioner) Serve(ctx context.Context, action string, in io.Reader, out io.Writer) error {
	o := &operation{release: p.Release, response: protocol.Response{Version: protocol.Version}}
	if err := o.run(ctx, action, in); err != nil {
		o.response.Problem = problemOf(err)
	}
	line, err := json.Marshal(o.response)
	if err != nil {
		return fmt.Errorf("write the reply: %w", err)
	}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("print the reply: %w", err)
	}
	return nil
}

// ensureRunning reads the order and acts.
func (o *operation) run(ctx context.Context, action string, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	if err := o.readRequest(r); err != nil {
		return err
	}
	o.body = r
	acts := map[string]func(context.Context) error{
		protocol.ActionInspect: o.inspect, protocol.ActionStart: o.withLock(o.start),
		protocol.ActionReach: o.reachNodes, protocol.ActionStop: o.stop, protocol.ActionReceive: o.withLock(o.receive),
	}
	act := acts[action]
	if act == nil {
		return &protocol.Problem{Cause: fmt.Sprintf("the mlfnode on this machine knows no action %q", action), Cure: cureVersions}
	}
	return act(ctx)
}

const cureVersions = "use the same version of mlfnode on every machine"

// readRequest takes the order from the first line.
func (o *operation) readRequest(r *bufio.Reader) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxRequest {
			return errors.New("the order is too long")
		}
		if err == nil || errors.Is(err, io.EOF) && len(line) > 0 {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("read the order: %w", err)
		}
	}
	if err := json.Unmarshal(line, &o.request); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if v := o.request.Version; v > protocol.Version {
		return &protocol.Problem{Cause: fmt.Sprintf("the mlfnode on this machine is older than the one that gave the order (it speaks version %d, not %d)",
			protocol.Version, v), Cure: cureVersions}
	}
	if !path.IsAbs(o.request.Root) || path.Clean(o.request.Root) != o.request.Root || o.request.Root == "/" {
		return fmt.Errorf("the root folder %q is not an absolute path", o.request.Root)
	}
	o.Root = o.request.Root
	return nil
}

// lockTimeout is how long an action waits for another one on the same machine.
const lockTimeout = 30 * time.Second

// withLock has an action that changes something wait for its turn.
func (o *operation) withLock(act func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		unlock, err := o.lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		return act(ctx)
	}
}

// recordChange notes a change.
func (o *operation) recordChange(format string, v ...any) {
	o.response.Done = append(o.response.Done, fmt.Sprintf(format, v...))
}

// loadConfig loads node.yaml, with the state folder that belongs to the root.
func (o *operation) loadConfig(file string) (config.Config, error) {
	cfg, err := config.Load(file)
	cfg.StateDir, cfg.Version, cfg.Logger = o.State(), o.release, slog.New(slog.DiscardHandler)
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

// pollInterval is how often what is waited for is looked at.
const pollInterval = 50 * time.Millisecond

// pollUntil calls ok every now and then until it is true; false says that the time was over first.
func pollUntil(ctx context.Context, limit time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
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

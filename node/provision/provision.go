// Package provision brings this machine's node to a desired state. It is the far end of
// cluster/bootstrap: `mlfnode up` runs `mlfnode provision` over ssh, which compares the desired
// state with what is there, and changes what differs. Every action can be interrupted anywhere and
// repeated: files are written under a temporary name and renamed, a start is recorded only once the
// node runs, and an action holds the lock of the root folder.
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

// Provisioner carries out on this machine the requests of `mlfnode up` and the like.
type Provisioner struct {
	Release string // version of this program
}

// maxRequest bounds the line of a request: a push lists every file of a project.
const maxRequest = 256 << 20

// operation is one request being carried out.
type operation struct {
	installation
	request  protocol.Request
	body     io.Reader // what follows the request
	response protocol.Response
}

// installation is the node of a root folder: its files, its agent, and what keeps that running.
type installation struct {
	protocol.Layout
	release string       // version of this program
	cached  cachedDigest // of Layout.Program
}

// Serve reads one request, carries it out, and prints the response. It returns an error only if it
// can't print one.
func (p Provisioner) Serve(ctx context.Context, action string, in io.Reader, out io.Writer) error {
	o := &operation{installation: installation{release: p.Release},
		response: protocol.Response{Version: protocol.Version}}
	if err := o.run(ctx, action, in); err != nil {
		o.response.Problem = problemOf(err)
	}
	line, err := json.Marshal(o.response)
	if err != nil {
		return fmt.Errorf("write the response: %w", err)
	}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("print the response: %w", err)
	}
	return nil
}

// run reads the request and carries it out.
func (o *operation) run(ctx context.Context, action string, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	line, err := readLine(r)
	if err == nil {
		err = json.Unmarshal(line, &o.request)
	}
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if v := o.request.Version; v > protocol.Version {
		return &protocol.Problem{Cause: fmt.Sprintf(
			"the mlfnode on this machine is older than the one that sent the request "+
				"(it speaks version %d, not %d)", protocol.Version, v), Cure: cureVersions}
	}
	if root := o.request.Root; !path.IsAbs(root) || path.Clean(root) != root || root == "/" {
		return fmt.Errorf("the root folder %q is not an absolute path", root)
	}
	o.Root, o.body = o.request.Root, r
	acts := map[string]func(context.Context) error{
		protocol.ActionInspect: o.inspect, protocol.ActionStart: o.start, protocol.ActionStop: o.stop,
		protocol.ActionReceive: o.receive,
		protocol.ActionReach:   func(ctx context.Context) error { return reachNodes(ctx, o.request.Addresses) },
	}
	act := acts[action]
	if act == nil {
		return &protocol.Problem{Cause: fmt.Sprintf("the mlfnode on this machine knows no action %q", action),
			Cure: cureVersions}
	}
	changes := action == protocol.ActionStart || action == protocol.ActionReceive
	if changes || action == protocol.ActionStop && isNodeFolder(o.Layout) { // otherwise no lock file is left behind
		unlock, err := lock(ctx, o.Layout)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return act(ctx)
}

// readLine reads the line of a request.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxRequest {
			return nil, errors.New("it is too long")
		}
		if err == nil || errors.Is(err, io.EOF) && len(line) > 0 {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

const cureVersions = "use the same version of mlfnode on every machine"

// lockTimeout bounds the wait for another action on the same machine.
const lockTimeout = 30 * time.Second

// recordChange adds a change to the response.
func (o *operation) recordChange(format string, v ...any) {
	o.response.Done = append(o.response.Done, fmt.Sprintf(format, v...))
}

// loadConfig loads a node.yaml, with the state folder under the root.
func (i *installation) loadConfig(file string) (config.Config, error) {
	cfg, err := config.Load(file)
	cfg.StateDir, cfg.Version, cfg.Logger = i.State(), i.release, slog.New(slog.DiscardHandler)
	return cfg, err
}

// problemOf returns an error as a problem, with its cure if it has one.
func problemOf(err error) *protocol.Problem {
	var refusal *api.Error
	if errors.As(err, &refusal) {
		return &protocol.Problem{Cause: refusal.Msg, Cure: refusal.Hint}
	}
	return protocol.ProblemOf(err)
}

// pollInterval is how often a condition is checked that this package waits for.
const pollInterval = 50 * time.Millisecond

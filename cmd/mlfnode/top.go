package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"mlfnode/cmd/mlfnode/top"
	"mlfnode/node"
	"mlfnode/node/api"
)

func topCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "top", Short: "Show the cluster, its sweeps and their trials in this terminal, and act on them with keys",
		Args: noArgument,
		Long: `Show in this terminal what the cluster does: its sweeps with their progress and its nodes with their
GPUs; one sweep with its best trial, its trials and why some failed; one trial with its output,
which you can follow and search. Actions ask first. The screen changes as the cluster does. ? lists
the keys, q quits.

It shows what the page of mlfnode monitor shows. Like every command, it talks to the master, also
from a laptop, or to this machine's own node.`,
		Example: `  mlfnode top
  mlfnode top --master hostA`,
		RunE: func(c *cobra.Command, _ []string) error { return runTop(c.Context(), a) },
	}
}

func runTop(ctx context.Context, a *app) error {
	out, ok := fileOf(a.stdout)
	if !ok || !isTerminal(out) || !isTerminal(os.Stdin) || os.Getenv("TERM") == "dumb" {
		return usage("top needs a terminal to draw on and to read keys from",
			"mlfnode sweeps or mlfnode members, which print the same as text")
	}
	said := &heldOutput{w: a.stderr}
	ui := *a.console
	ui.stderr = said // a node in this process must not write to the screen
	behind := a.withConsole(&ui)
	s, err := behind.attach(ctx, true)
	if err != nil {
		return err
	}
	t := &topSession{connector: behind, session: s, failed: make(chan error, 1)}
	defer said.release()
	defer func() { t.current().Close() }()
	watching, stop := context.WithCancel(ctx)
	defer t.watches.Wait()
	defer stop()
	t.watchFailure(watching, s.Failed())
	said.hold()
	return top.Run(ctx, top.Config{
		Client: func() *api.Client { return t.current().Client() }, Again: t.reconnect,
		Hosts: func() bool { return t.current().Hosting() }, Failed: t.failed,
		Colours: a.colours(a.stdout), Input: os.Stdin, Output: out,
	})
}

// topSession is the session of top. It changes when this process takes over from a node of another
// terminal.
type topSession struct {
	connector *connector
	failed    chan error // the first error of a node in this process, in any session
	watches   sync.WaitGroup

	mu      sync.Mutex
	session *node.Session
}

func (t *topSession) current() *node.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session
}

// watchFailure passes on the error of a session's node. It is the only reader: a node reports its
// error once.
func (t *topSession) watchFailure(ctx context.Context, failed <-chan error) {
	t.watches.Go(func() {
		select {
		case err := <-failed:
			select {
			case t.failed <- err:
			default: // an earlier error already ends the program
			}
		case <-ctx.Done():
		}
	})
}

// reconnect opens a session with the node that took over, or with one in this process; with a
// master it just tries again on new connections.
func (t *topSession) reconnect(ctx context.Context) error {
	s := t.current()
	if s.InCluster() || s.Hosting() {
		s.Client().Close()
		return nil
	}
	next, err := t.connector.attach(ctx, true)
	if err != nil {
		return err
	}
	s.Close()
	t.watchFailure(ctx, next.Failed())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.session = next
	return nil
}

// heldSize bounds what a heldOutput keeps.
const heldSize = 64 << 10

// heldOutput passes on what is written to it; while it holds, it keeps the beginning for later.
type heldOutput struct {
	w io.Writer

	mu      sync.Mutex
	holding bool
	kept    bytes.Buffer
}

// Write implements io.Writer.
func (c *heldOutput) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.holding {
		return c.w.Write(p)
	}
	if c.kept.Len()+len(p) <= heldSize {
		c.kept.Write(p)
	}
	return len(p), nil
}

func (c *heldOutput) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = true
}

func (c *heldOutput) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = false
	_, _ = c.kept.WriteTo(c.w) // messages that can't be written are lost
}

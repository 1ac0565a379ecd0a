package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"mlfnode/node"
	"mlfnode/node/api"
)

func monitorCommand(a *app) *cobra.Command {
	port, role := node.DefaultMonitorPort, string(api.RoleOperator)
	c := &cobra.Command{
		Use: "monitor", Short: "Serve a web page on this machine to watch sweeps and act on them", Args: noArgument,
		Long: `Serve a web page and the HTTP API to browsers and programs on this machine, until Ctrl-C. Like every
command, it talks to the master, over TLS with your token, or to this machine's own node.

It prints a link that logs in one browser, once, within a minute. Enter prints another one. Other
users of this machine can reach the port, but get nothing without a link. From a laptop: run it
there, with a token from mlfnode token --role operator, or forward the port with
ssh -L 5555:127.0.0.1:5555.`,
		Example: `  mlfnode monitor
  mlfnode monitor --role viewer --port 8080`,
		RunE: func(c *cobra.Command, _ []string) error {
			if role != string(api.RoleOperator) && role != string(api.RoleViewer) {
				return usage(fmt.Sprintf("--role %s is not a role for browsers", role),
					"--role viewer only reads, --role operator also acts")
			}
			if port < 0 || port > 65535 {
				return usage(fmt.Sprintf("--port %d is not a port", port),
					"choose one from 1 to 65535; 0 is any free one")
			}
			return serveMonitor(c.Context(), a, port, api.Role(role))
		},
	}
	f := c.Flags()
	f.IntVar(&port, "port", port, "port on 127.0.0.1; if it is taken, the next free one")
	f.StringVar(&role, "role", role, "what browsers may do: operator or viewer")
	return c
}

func serveMonitor(ctx context.Context, a *app, port int, role api.Role) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	s, err := a.attach(ctx, true)
	if err != nil {
		return err
	}
	defer s.Close()
	browsers, err := node.NewBrowsers(ctx, s, port, role, cfg.Logger)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case err := <-s.Failed():
			stop(err)
		case <-ctx.Done():
		}
	}()
	links := make(chan struct{}, 1)
	links <- struct{}{}
	go printLoginLinks(ctx, a.console, browsers, links, stop)
	go readLinkRequests(ctx, links)
	a.say("the link logs one browser in, within a minute; Enter prints another one, Ctrl-C ends")
	if err := browsers.Run(ctx); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// printLoginLinks prints a link whenever one is requested. If it can't, nobody can log in, and the
// command ends.
func printLoginLinks(ctx context.Context, ui *console, browsers *node.Browsers, links <-chan struct{},
	stop context.CancelCauseFunc) {
	for {
		select {
		case <-links:
			if _, err := fmt.Fprintln(ui.stdout, browsers.Link()); err != nil {
				stop(err)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// readLinkRequests requests a link for each line that is typed. It ends with the program: reading a
// terminal can't be interrupted.
func readLinkRequests(ctx context.Context, links chan<- struct{}) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan() && ctx.Err() == nil; {
		select {
		case links <- struct{}{}:
		default: // one is requested already
		}
	}
}

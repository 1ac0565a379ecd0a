package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"

	"mlfnode/node/api"
	"mlfnode/node/monitor"
)

// DefaultMonitorPort is the port for browsers, the same as that of Flower.
const DefaultMonitorPort = 5555

// monitorPorts is how many ports are tried from the first one on.
const monitorPorts = 100

// Browsers serves a session to the browsers of this machine.
type Browsers struct {
	*monitor.Proxy
	listener net.Listener
}

// NewBrowsers listens for browsers on the first free port, starting at the given one. Nobody gets
// more rights than role.
func NewBrowsers(ctx context.Context, s *Session, port int, role api.Role, log *slog.Logger) (*Browsers, error) {
	has, err := s.client.Session(ctx)
	var refusal *api.Error
	switch {
	case errors.As(err, &refusal) && refusal.Status == http.StatusNotFound:
		// a node of the version before, which judges each request nevertheless
	case err != nil:
		return nil, err
	case has.Role == api.RoleViewer:
		role = api.RoleViewer
	}
	target, transport, err := s.client.Target()
	if err != nil {
		return nil, fmt.Errorf("find the node's address: %w", err)
	}
	l, err := listenLoopback(port)
	if err != nil {
		return nil, err
	}
	proxy, err := monitor.NewProxy(l.Addr(), target, transport, role, log)
	if err != nil {
		l.Close()
		return nil, err
	}
	return &Browsers{proxy, l}, nil
}

func listenLoopback(port int) (l net.Listener, err error) {
	for next := port; next < port+monitorPorts && next <= 65535; next++ {
		l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(next)))
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen for browsers: %w", err)
	}
	return l, nil
}

// Run serves until ctx ends.
func (b *Browsers) Run(ctx context.Context) error { return b.Serve(ctx, b.listener) }

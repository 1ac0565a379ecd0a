package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"mlfnode/node/private"
)

// socketName is the unix socket in the state folder through which other terminals reach the node.
const socketName = "node.sock"

// listen opens the socket for this user (and root) only. The caller holds the lock, so a socket
// that is there is a dead one.
func listen(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove dead socket: %w", err)
	}
	var l *net.UnixListener
	err := private.WithSocketPath(dir, socketName, func(path string) error {
		var err error
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the node's socket: %w", err)
	}
	// The path that was bound may be one through /proc: the file is removed by its own name
	// instead.
	l.SetUnlinkOnClose(false)
	if err := private.Seal(dir, socketName); err != nil {
		l.Close()
		return nil, fmt.Errorf("close the node's socket to others: %w", err)
	}
	return unlinking{private.Listener{UnixListener: l}, filepath.Join(dir, socketName)}, nil
}

// unlinking removes the file of the socket when the listener is closed.
type unlinking struct {
	net.Listener
	path string
}

func (u unlinking) Close() error {
	_ = os.Remove(u.path) // a dead socket is harmless
	return u.Listener.Close()
}

// dial connects to the node of the state folder.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	var c net.Conn
	err := private.WithSocketPath(dir, socketName, func(path string) error {
		var d net.Dialer
		var err error
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	// Another user who listens there would be told what trials are to run with.
	if u, ok := c.(*net.UnixConn); err == nil && ok && os.Geteuid() != 0 && !private.IsTrusted(u) {
		c.Close()
		return nil, errors.New("the node's socket belongs to another user")
	}
	return c, err
}

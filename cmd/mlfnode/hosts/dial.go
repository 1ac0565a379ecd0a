package hosts

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// dialLimit bounds a connection attempt of Dial.
const dialLimit = 3 * time.Second

// Dial connects from the host to an address, which must be numeric. The test owns the connection.
func (h *Host) Dial(network, address string) (conn net.Conn, err error) {
	inner := h.RunInside(func() error {
		conn, err = net.DialTimeout(network, address, dialLimit)
		return nil
	})
	return conn, errors.Join(inner, err)
}

// RunInside runs fn on a thread in the host's network. Sockets that fn opens without starting
// goroutines belong to the host.
func (h *Host) RunInside(fn func() error) (err error) {
	h.mu.Lock()
	p := h.power
	h.mu.Unlock()
	if p == nil {
		return errors.New(h.Name + " is off")
	}
	onOwnThread(func() {
		if err = setns(p.init.Process.Pid, "net", unix.CLONE_NEWNET); err == nil {
			err = fn()
		}
	})
	return err
}

package shim

import (
	"net"
	"sync"
	"time"
)

// sendTimeout limits the sending of a message over a control connection.
const sendTimeout = 5 * time.Second

// frameConn is a control connection, of either side. Any goroutine may send; only send and
// sendLocked write to it.
type frameConn struct {
	*net.UnixConn

	mu  sync.Mutex // held to send
	buf []byte
}

func (c *frameConn) send(m *message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendLocked(m)
}

func (c *frameConn) sendLocked(m *message) error {
	buf, err := appendFrame(c.buf[:0], m)
	if err != nil {
		return err
	}
	c.buf = buf
	_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err = c.Write(buf)
	return err
}

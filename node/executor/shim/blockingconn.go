package shim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// blockingConn is the shim's end of a slot's connection. It blocks the thread that reads it, which
// is the slot's own: so the kernel wakes the thread that starts programs without a detour through
// another goroutine.
type blockingConn struct {
	file *os.File // holds fd open, in blocking mode
	fd   int
	in   []byte // what was read; at most one frame, since each is answered before the next
	oob  []byte
	out  []byte
}

// newBlockingConn takes over a connection from which nothing was read ahead.
func newBlockingConn(c *net.UnixConn) (*blockingConn, error) {
	f, err := c.File()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	c.Close()
	// Fd sets the file to blocking mode.
	return &blockingConn{file: f, fd: int(f.Fd()), in: make([]byte, 0, 8<<10),
		oob: make([]byte, unix.CmsgSpace(4*maxFiles))}, nil
}

// maxFiles is the maximum number of files sent with a frame.
const maxFiles = 2

// receive reads a frame and the files sent with it, which the caller closes. The body is valid
// until the next call.
func (c *blockingConn) receive() (m *message, body []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	c.in = c.in[:0]
	if cap(c.in) > 1<<20 {
		c.in = make([]byte, 0, 8<<10) // don't keep the memory of one huge frame
	}
	need := prefixSize
	for head := 0; ; {
		for len(c.in) < need {
			if files, err = c.fill(need, files); err != nil {
				return nil, nil, files, err
			}
		}
		if head > 0 {
			m, err = decode(c.in[prefixSize : prefixSize+head])
			return m, c.in[prefixSize+head : need], files, err
		}
		h, b, err := decodePrefix(c.in)
		if err != nil {
			return nil, nil, files, err
		}
		head, need = h, prefixSize+h+b
	}
}

// fill reads at least one byte, and up to the capacity, which is at least need.
func (c *blockingConn) fill(need int, files []*os.File) ([]*os.File, error) {
	if need > cap(c.in) {
		c.in = append(make([]byte, 0, need), c.in...)
	}
	n, oobn, _, _, err := unix.Recvmsg(c.fd, c.in[len(c.in):cap(c.in)], c.oob, unix.MSG_CMSG_CLOEXEC)
	if err == unix.EINTR {
		return files, nil
	}
	if err != nil {
		return files, os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		files = append(files, filesIn(c.oob[:oobn])...)
	}
	if n == 0 {
		return files, io.EOF
	}
	c.in = c.in[:len(c.in)+n]
	return files, nil
}

func filesIn(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "output"))
		}
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// send writes a frame.
func (c *blockingConn) send(m *message) error {
	buf, err := appendFrame(c.out[:0], m)
	if err != nil {
		return err
	}
	c.out = buf
	for len(buf) > 0 {
		n, err := unix.SendmsgN(c.fd, buf, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		buf = buf[n:]
	}
	return nil
}

// shutdownRead makes receive end, also on another thread. What is sent still arrives.
func (c *blockingConn) shutdownRead() { _ = unix.Shutdown(c.fd, unix.SHUT_RD) }

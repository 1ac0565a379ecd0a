package shim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// line is the shim's end of a slot's connection. It blocks the thread that reads it, which is the slot's own: the thread
// that starts programs is woken by the kernel without a detour through another goroutine.
type line struct {
	file *os.File // holds fd open, in blocking mode
	fd   int
	in   []byte // what has been read; a frame at most, since each is answered before the next
	oob  []byte
	out  []byte
}

// newLine takes over a connection from which nothing was read ahead.
func newLine(c *net.UnixConn) (*line, error) {
	f, err := c.File()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	c.Close()
	// Fd sets the file to blocking mode.
	return &line{file: f, fd: int(f.Fd()), in: make([]byte, 0, 8<<10), oob: make([]byte, unix.CmsgSpace(4*maxFiles))}, nil
}

// maxFiles is how many files a frame may bring.
const maxFiles = 2

// receive reads a frame with the files that came with it, which the caller closes. The body is good until the next call.
func (l *line) receive() (m *message, body []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	l.in = l.in[:0]
	if cap(l.in) > 1<<20 {
		l.in = make([]byte, 0, 8<<10) // one huge frame is not to be remembered for good
	}
	need := prefixSize
	for head := 0; ; {
		for len(l.in) < need {
			if files, err = l.fill(need, files); err != nil {
				return nil, nil, files, err
			}
		}
		if head > 0 {
			m, err = decode(l.in[prefixSize : prefixSize+head])
			return m, l.in[prefixSize+head : need], files, err
		}
		h, b, err := lengths(l.in)
		if err != nil {
			return nil, nil, files, err
		}
		head, need = h, prefixSize+h+b
	}
}

// fill reads some bytes, up to need and more if they are there.
func (l *line) fill(need int, files []*os.File) ([]*os.File, error) {
	if need > cap(l.in) {
		l.in = append(make([]byte, 0, need), l.in...)
	}
	n, oobn, _, _, err := unix.Recvmsg(l.fd, l.in[len(l.in):cap(l.in)], l.oob, unix.MSG_CMSG_CLOEXEC)
	if err == unix.EINTR {
		return files, nil
	}
	if err != nil {
		return files, os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		files = append(files, filesIn(l.oob[:oobn])...)
	}
	if n == 0 {
		return files, io.EOF
	}
	l.in = l.in[:len(l.in)+n]
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
func (l *line) send(m *message) error {
	buf, err := appendFrame(l.out[:0], m)
	if err != nil {
		return err
	}
	l.out = buf
	for len(buf) > 0 {
		n, err := unix.SendmsgN(l.fd, buf, nil, nil, unix.MSG_NOSIGNAL)
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

// hangUp has receive end, also on another thread. What is sent still arrives.
func (l *line) hangUp() { _ = unix.Shutdown(l.fd, unix.SHUT_RD) }

func (l *line) close() { l.file.Close() }

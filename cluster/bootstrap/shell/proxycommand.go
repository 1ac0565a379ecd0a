package shell

import (
	"cmp"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// proxyConn is the connection that a ProxyCommand gives on its standard input and output. It ends
// with its command, and the command with it.
type proxyConn struct {
	cmd         *exec.Cmd
	in          io.WriteCloser
	out         io.ReadCloser
	stderr      *tail
	outputEnded atomic.Bool // the command's output has ended
	close       func() error
}

var _ net.Conn = (*proxyConn)(nil)

// startProxy runs the ProxyCommand of a machine by the user's shell, in its place, as OpenSSH does.
func startProxy(r route) (*proxyConn, error) {
	p := &proxyConn{cmd: exec.Command(cmp.Or(os.Getenv("SHELL"), "/bin/sh"), "-c", "exec "+r.proxy), stderr: &tail{}}
	p.cmd.Stderr, p.cmd.WaitDelay = p.stderr, closeDelay
	p.close = sync.OnceValue(p.stop)
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, proxyProblem(r, err.Error())
	}
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, proxyProblem(r, err.Error())
	}
	if err = p.cmd.Start(); err != nil {
		return nil, proxyProblem(r, unwrapErrno(err).Error())
	}
	return p, nil
}

// Read implements net.Conn.
func (p *proxyConn) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err != nil {
		p.outputEnded.Store(true)
	}
	return n, err
}

// Write implements net.Conn.
func (p *proxyConn) Write(b []byte) (int, error) { return p.in.Write(b) }

// Close ends the command, and waits for that.
func (p *proxyConn) Close() error { return p.close() }

// stop lets a command that gives no more come to its own end. OpenSSH sends SIGHUP to others.
func (p *proxyConn) stop() error {
	_ = p.in.Close() // it has ended, or is about to
	if !p.outputEnded.Load() {
		_ = p.cmd.Process.Signal(syscall.SIGHUP)
	}
	kill := time.AfterFunc(closeDelay, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait() // how it ended is kept, see failure
	return nil
}

// failure is what the command said, when it failed by itself; it is asked after Close.
func (p *proxyConn) failure() (said string, failed bool) {
	code := p.cmd.ProcessState.ExitCode()
	if !p.outputEnded.Load() || code == 0 {
		return "", false
	}
	return cmp.Or(strings.TrimSpace(p.stderr.String()), "exit code "+strconv.Itoa(code)), true
}

// LocalAddr implements net.Conn.
func (*proxyConn) LocalAddr() net.Addr { return noAddr{} }

// RemoteAddr implements net.Conn.
func (*proxyConn) RemoteAddr() net.Addr { return noAddr{} }

// SetDeadline implements net.Conn; ssh sets none.
func (*proxyConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.Conn.
func (*proxyConn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.Conn.
func (*proxyConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

package executor

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// output carries what an attempt prints out of its pipes into the attempt's files. The program gets pipes because a pipe is
// what programs expect of a runner: one that opens /dev/stderr by name appends, where it would empty a file.
//
//	program ──pipe──► slot's thread ──► Attempt.Stdout, Attempt.Stderr
//
// The slot's own thread carries while it waits for the end of the program, so a program that prints nothing costs no other
// thread anything. It keeps a writing end of each pipe: the end of the program then makes no reader wake up, and what a pipe
// holds once the tree is gone is the complete output, even if another process still has the pipe open.
type output struct {
	process *Process
	streams [2]stream // Stdout and Stderr; one that both share is the first
	stdout  int       // the program's descriptors, -1 for none
	stderr  int

	room    int64 // bytes that are still stored
	limited bool
	cut     int64        // bytes that are not stored; after the first one none is
	seen    atomic.Int64 // bytes that the program has written

	pidfd   int       // of the program; -1 before it runs, and where the kernel has none
	stalled time.Time // when the files could first not be written; zero while they can
	lost    error     // why output is not stored that the limit has room for
}

// stream is one pipe and the file that it ends in; without a file it is not used.
type stream struct {
	r, w int
	file *os.File
	kept int64
	cut  int64
	tail []byte // the end of what was cut
}

const (
	// batchTime is how long what a program prints is left in the pipe, which has room for some 64 KiB, so that a program
	// that prints line by line does not wake the slot's thread for each. firstBatch is the time before the first look: most
	// short programs have ended by then.
	batchTime  = 2 * time.Millisecond
	firstBatch = 10 * time.Millisecond
	// batchSize is how much must have come at once for the next look to be made without that delay.
	batchSize = 16 << 10
	// carrySize is how much is read at one time.
	carrySize = 64 << 10
	// stallLook is the pause between tries to write a file that can't be written.
	stallLook = 100 * time.Millisecond
	// stallTime is how long an attempt waits for a file that can't be written, as on a full disk, before its output is cut.
	stallTime = 10 * time.Second
	// tailSize is how much of the end of cut output is kept, to find the last lines or a last metric in.
	tailSize = 32 << 10
	// endLook and lastEndLook are the pauses between looks at a program where the kernel does not tell its end on a pidfd.
	endLook     = time.Millisecond
	lastEndLook = 100 * time.Millisecond
)

// newOutput makes the pipes of an attempt.
func (p *Process) newOutput(a *Attempt) (*output, error) {
	o := &output{process: p, stdout: -1, stderr: -1, room: a.OutputLimit, limited: a.OutputLimit > 0, pidfd: -1}
	var err error
	if a.Stdout != nil {
		if o.streams[0], err = newStream(a.Stdout); err != nil {
			return nil, err
		}
		o.stdout = o.streams[0].w
	}
	switch {
	case a.Stderr == nil:
	case a.Stderr == a.Stdout:
		o.stderr = o.stdout
	default:
		if o.streams[1], err = newStream(a.Stderr); err != nil {
			o.close()
			return nil, err
		}
		o.stderr = o.streams[1].w
	}
	return o, nil
}

// newStream makes a pipe. Both ends block, as a program expects of its own: what is not known to be readable is not read.
func newStream(f *os.File) (stream, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return stream{}, os.NewSyscallError("pipe2", err)
	}
	return stream{r: fds[0], w: fds[1], file: f}, nil
}

// await carries until the program has ended, leaving it to be awaited.
func (o *output) await(pid int) error {
	if o.stdout < 0 && o.stderr < 0 {
		return awaitEnd(pid)
	}
	fds := o.watched()
	began := time.Now()
	for batch := firstBatch; ; {
		watched, timeout := fds[:], -1
		if batch > 0 {
			watched, timeout = fds[:1], int(batch.Milliseconds())
		}
		if o.pidfd < 0 {
			look := min(max(time.Since(began)/16, endLook), lastEndLook)
			timeout = int(look.Milliseconds())
		}
		_, err := unix.Poll(watched, timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("poll", err)
		}
		if o.pidfd >= 0 && fds[0].Revents != 0 || o.pidfd < 0 && hasEnded(pid) {
			return nil
		}
		if batch > 0 {
			batch = 0
			continue
		}
		if n := o.carry(fds[1:]); n > 0 && n < batchSize {
			batch = batchTime
		}
	}
}

// watched is what is waited for: the end of the program and something in a pipe. What there is not is skipped by the kernel.
func (o *output) watched() [3]unix.PollFd {
	fds := [3]unix.PollFd{{Fd: int32(o.pidfd), Events: unix.POLLIN}, {Fd: -1}, {Fd: -1}}
	for i := range o.streams {
		if s := &o.streams[i]; s.file != nil {
			fds[1+i] = unix.PollFd{Fd: int32(s.r), Events: unix.POLLIN}
		}
	}
	return fds
}

// hasEnded reports whether the program has ended, leaving it to be awaited.
func hasEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err != nil && err != unix.EINTR || err == nil && info.Signo != 0
}

// carry moves what is in the pipes that were found readable, a bounded piece of each, and returns how much that was.
func (o *output) carry(polled []unix.PollFd) (n int) {
	for i := range o.streams {
		if polled[i].Revents != 0 {
			n += o.move(&o.streams[i])
		}
	}
	return n
}

// relieve moves a piece of what the pipes hold, if they hold anything.
func (o *output) relieve() {
	for i := range o.streams {
		if s := &o.streams[i]; s.file != nil && s.readable() {
			o.move(s)
		}
	}
}

// move moves one piece of a stream that is readable.
func (o *output) move(s *stream) int {
	buf := carryBuffers.Get().(*[carrySize]byte)
	defer carryBuffers.Put(buf)
	for {
		n, err := unix.Read(s.r, buf[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return 0
		}
		o.seen.Add(int64(n))
		o.store(s, buf[:n])
		return n
	}
}

var carryBuffers = sync.Pool{New: func() any { return new([carrySize]byte) }}

// store writes as much as the limit leaves room for, and counts the rest.
func (o *output) store(s *stream, b []byte) {
	if o.cut == 0 {
		n := len(b)
		if o.limited {
			n = int(min(int64(n), o.room))
		}
		n = o.write(s.file, b[:n])
		o.room -= int64(n)
		s.kept += int64(n)
		b = b[n:]
	}
	o.cut += int64(len(b))
	s.cut += int64(len(b))
	if s.tail = append(s.tail, b[max(0, len(b)-tailSize):]...); len(s.tail) > 2*tailSize {
		s.tail = append(s.tail[:0], s.tail[len(s.tail)-tailSize:]...)
	}
}

// write writes b and returns how much of it was written: less than all where that is not possible for too long.
func (o *output) write(f *os.File, b []byte) (written int) {
	for len(b) > written {
		n, err := f.Write(b[written:])
		written += n
		if err == nil {
			o.stalled = time.Time{}
		} else if !o.hold(err) {
			break
		}
	}
	return written
}

// lastWords is the end of what was cut: all of it, or the last whole lines.
func (s *stream) lastWords() string {
	tail := s.tail[max(0, len(s.tail)-tailSize):]
	if int64(len(tail)) < s.cut {
		tail = tail[max(0, bytes.IndexByte(tail, '\n')):]
	}
	return string(tail)
}

// hold waits before another try to write a file, for stallTime at most. The end of the program changes nothing: what it has printed
// is waited for like the rest.
func (o *output) hold(err error) bool {
	now := time.Now()
	switch {
	case o.stalled.IsZero():
		o.stalled = now
		o.process.log.Warn("output can't be written; the attempt waits", "err", err)
	case now.Sub(o.stalled) > o.process.stall:
		o.lost = err
		o.process.log.Warn("output can't be written and is cut", "err", err)
		return false
	}
	_, _ = unix.Poll(nil, int(stallLook.Milliseconds())) // an early return is an early try
	return true
}

// finish moves what the pipes hold, once the tree is gone. What other processes still write to them does not belong to the attempt.
func (o *output) finish() {
	fds := o.watched()
	if n, err := unix.Poll(fds[1:], 0); n == 0 && err == nil {
		return // as after most short programs
	}
	for i := range o.streams {
		if s := &o.streams[i]; s.file != nil {
			o.empty(s)
		}
	}
}

// empty moves what a pipe holds now: no more than fits into it, for another process may go on writing.
func (o *output) empty(s *stream) {
	left, err := unix.FcntlInt(uintptr(s.r), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		left = carrySize
	}
	for left > 0 && s.readable() {
		n := o.move(s)
		if n == 0 {
			return
		}
		left -= n
	}
}

// readable reports whether there is something in the pipe. It never has an end while we hold one.
func (s *stream) readable() bool {
	fds := []unix.PollFd{{Fd: int32(s.r), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// count tells the outcome what was cut.
func (o *output) count(to *Outcome) {
	if to.Cut = o.cut; o.cut == 0 {
		return
	}
	for i := range o.streams {
		to.Kept[i], to.Tail[i] = o.streams[i].kept, o.streams[i].lastWords()
	}
}

// blame makes an attempt whose output could not be stored the node's failure, whatever the program itself came to: it runs again
// where the output can be kept. What stopped it from outside remains the reason.
func (o *output) blame(to *Outcome) {
	if o.lost == nil || to.Class != grid.ClassNone && grid.FailureOf(to.Class).Owner != grid.OwnerTrial {
		return
	}
	reason := "its output could not be stored: " + o.lost.Error()
	var bare *os.PathError
	if errors.As(o.lost, &bare) {
		reason = "its output could not be stored: " + bare.Err.Error()
	}
	if to.Reason != "" {
		reason += " (" + to.Reason + ")"
	}
	to.Class, to.Reason = grid.ClassNode, reason
}

// close closes the pipes.
func (o *output) close() {
	if o.pidfd >= 0 {
		unix.Close(o.pidfd)
		o.pidfd = -1
	}
	for i := range o.streams {
		if s := &o.streams[i]; s.file != nil {
			unix.Close(s.r)
			unix.Close(s.w)
			s.file = nil
		}
	}
}

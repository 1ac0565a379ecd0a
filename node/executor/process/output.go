package process

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/node/executor"

	"golang.org/x/sys/unix"
)

// output copies what an attempt prints from its pipes to the attempt's files. The program gets
// pipes because programs expect a pipe from whatever runs them: a program that opens /dev/stderr by
// name appends to a pipe, where it would truncate a file.
//
//	program ──pipe──► slot's thread ──► Attempt.Stdout, Attempt.Stderr
//
// The slot's own thread copies while it waits for the end of the program, so a program that prints
// nothing costs no other thread anything. The output holds a writing end of each pipe: so the end
// of the program wakes no reader, and what a pipe holds once the tree is gone is the complete
// output, even if another process still has the pipe open.
type output struct {
	*executor.Sink
	streams   [2]stream // Stdout and Stderr; the first if they share one
	stdout    int       // the program's descriptors, -1 for none
	stderr    int
	pidfd     int         // of the program; -1 before it runs, and where the kernel has none
	abandoned atomic.Bool // the program is no longer waited for
}

// stream is one pipe. It is not used if there is no file to copy to.
type stream struct {
	r, w int
	used bool
}

const (
	// batchTime is how long output is left in the pipe, which holds about 64 KiB, so that a program
	// that prints line by line does not wake the slot's thread for each line. firstBatch is the
	// time before the first read: most short programs have ended by then.
	batchTime  = 2 * time.Millisecond
	firstBatch = 10 * time.Millisecond
	// batchSize is how much must have arrived at once for the next read to happen without that
	// delay.
	batchSize = 16 << 10
	// readSize is the size of one read.
	readSize = 64 << 10
	// firstEndPoll and maxEndPoll are the shortest and the longest pause between polls for the end
	// of a program, where the kernel does not report it on a pidfd.
	firstEndPoll = time.Millisecond
	maxEndPoll   = 100 * time.Millisecond
	// maxAbandonPoll is the longest pause between checks whether the program is still waited for.
	maxAbandonPoll = 10 * time.Second
)

// newOutput creates the pipes of an attempt.
func (e *Executor) newOutput(a *executor.Attempt) (*output, error) {
	o := &output{Sink: executor.NewSink(a, e.log, e.stallTimeout), stdout: -1, stderr: -1, pidfd: -1}
	var err error
	if a.Stdout != nil {
		if o.streams[0], err = newStream(); err != nil {
			return nil, err
		}
		o.stdout = o.streams[0].w
	}
	switch {
	case a.Stderr == nil:
	case a.Stderr == a.Stdout:
		o.stderr = o.stdout
	default:
		if o.streams[1], err = newStream(); err != nil {
			o.close()
			return nil, err
		}
		o.stderr = o.streams[1].w
	}
	return o, nil
}

// newStream creates a pipe. Both ends block, as a program expects of its own: a pipe is only read
// when it is known to be readable.
func newStream() (stream, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return stream{}, os.NewSyscallError("pipe2", err)
	}
	return stream{r: fds[0], w: fds[1], used: true}, nil
}

// await copies output until the program has ended, and leaves the program to be reaped. It returns
// errForeign if it was told to abandon the program.
func (o *output) await(pid int) error {
	fds := o.watched()
	began := time.Now()
	for batch := firstBatch; ; {
		watched, timeout := fds[:], int(maxAbandonPoll.Milliseconds())
		if batch > 0 {
			watched, timeout = fds[:1], int(batch.Milliseconds())
		}
		if o.pidfd < 0 {
			look := min(max(time.Since(began)/16, firstEndPoll), maxEndPoll)
			timeout = int(look.Milliseconds())
		}
		_, err := unix.Poll(watched, timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("poll", err)
		case o.abandoned.Load():
			return errForeign
		}
		if o.pidfd >= 0 && fds[0].Revents != 0 || o.pidfd < 0 && hasEnded(pid) {
			return nil
		}
		if batch > 0 {
			batch = 0
			continue
		}
		n := 0 // a bounded piece of each pipe
		for i := range o.streams {
			if fds[1+i].Revents != 0 {
				n += o.copyPiece(i)
			}
		}
		if n > 0 && n < batchSize {
			batch = batchTime
		}
	}
}

// watched returns what to poll: the end of the program and data in a pipe. The kernel skips entries
// without a descriptor.
func (o *output) watched() [3]unix.PollFd {
	fds := [3]unix.PollFd{{Fd: int32(o.pidfd), Events: unix.POLLIN}, {Fd: -1}, {Fd: -1}}
	for i := range o.streams {
		if s := &o.streams[i]; s.used {
			fds[1+i] = unix.PollFd{Fd: int32(s.r), Events: unix.POLLIN}
		}
	}
	return fds
}

// hasEnded reports whether the program has ended, and leaves it to be reaped.
func hasEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err != nil && err != unix.EINTR || err == nil && info.Signo != 0
}

// drainSome copies a piece of what the pipes hold, if they hold anything.
func (o *output) drainSome() {
	for i := range o.streams {
		if s := &o.streams[i]; s.used && s.readable() {
			o.copyPiece(i)
		}
	}
}

// copyPiece copies one piece of a stream that is readable.
func (o *output) copyPiece(i int) int {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for {
		n, err := unix.Read(o.streams[i].r, buf[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return 0
		}
		o.Store(i, buf[:n])
		return n
	}
}

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// drain copies what the pipes hold once the tree is gone. What other processes write to them later
// does not belong to the attempt.
func (o *output) drain() {
	fds := o.watched()
	if n, err := unix.Poll(fds[1:], 0); n == 0 && err == nil {
		return // the usual case after short programs
	}
	for i := range o.streams {
		s := &o.streams[i]
		if !s.used {
			continue
		}
		left, err := unix.FcntlInt(uintptr(s.r), unix.F_GETPIPE_SZ, 0) // no more: another process may go on writing
		if err != nil {
			left = readSize
		}
		for left > 0 && s.readable() {
			n := o.copyPiece(i)
			if n == 0 {
				break
			}
			left -= n
		}
	}
}

// readable reports whether the pipe holds data. It never reaches its end while we hold a writing
// end.
func (s *stream) readable() bool {
	fds := []unix.PollFd{{Fd: int32(s.r), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// close closes the pipes.
func (o *output) close() {
	if o.pidfd >= 0 {
		unix.Close(o.pidfd)
		o.pidfd = -1
	}
	for i := range o.streams {
		if s := &o.streams[i]; s.used {
			unix.Close(s.r)
			unix.Close(s.w)
			s.used = false
		}
	}
}

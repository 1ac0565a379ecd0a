package docker

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/executor"
)

// outputPipes copies a program's output from the pipes of its run into the attempt's files. The
// program has each pipe open for reading too, so while nobody else reads it neither dies nor loses
// output: it blocks once the pipe is full.
type outputPipes struct {
	mu     sync.Mutex
	sink   *executor.Sink // guarded by mu, except Written
	stored [2]bool        // the attempt has a file for the stream
	pipes  [2]*os.File
	work   sync.WaitGroup
}

// newOutputPipes makes the pipes that do not exist yet, and starts to forward them. stored is how
// much an earlier process has forwarded.
func newOutputPipes(dir string, a *executor.Attempt, stored [2]int64, log *slog.Logger) (*outputPipes, error) {
	o := &outputPipes{sink: executor.NewSink(a, log, executor.StallTimeout),
		stored: [2]bool{a.Stdout != nil, a.Stderr != nil}}
	o.sink.Resume(stored)
	for i, name := range []string{stdoutPipe, stderrPipe} {
		if i == 1 && a.Stderr == a.Stdout && a.Stdout != nil {
			break
		}
		path := filepath.Join(dir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
			o.close()
			return nil, fmt.Errorf("make the pipe of a container: %w", err)
		}
		f, err := openPipe(path)
		if err != nil {
			o.close()
			return nil, err
		}
		if raw, err := f.SyscallConn(); err == nil { // a kernel that refuses leaves it as it is
			_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
		}
		o.pipes[i] = f
	}
	for i, f := range o.pipes {
		if f != nil {
			o.work.Go(func() { o.forward(i, f) })
		}
	}
	return o, nil
}

// openPipe opens a pipe of a run for reading and writing. The program may have replaced the pipe by
// another file, which is refused.
func openPipe(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the pipe of a container: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		f.Close()
		return nil, fmt.Errorf("open the pipe of a container: %s is not a pipe any more", path)
	}
	return f, nil
}

// HoldPipes keeps the pipes of a run open until release is called. The content of a pipe is lost
// when the last process closes it, so without HoldPipes the output of a program would be lost that
// ends between the death of one reader and the start of the next.
func (o *Options) HoldPipes(name string) (release func()) {
	var held []*os.File
	for _, pipe := range []string{stdoutPipe, stderrPipe} {
		f, err := openPipe(filepath.Join(o.Dir, o.containerName(name), ioDir, pipe))
		if err == nil { // else the stream shares the other's pipe
			held = append(held, f)
		}
	}
	return func() {
		for _, f := range held {
			f.Close()
		}
	}
}

const (
	// pipeSize is how much a program can print before it blocks while nobody reads.
	pipeSize = 256 << 10
	// readSize is the most that one read returns.
	readSize = 64 << 10
)

// forward copies from a pipe until drain or close ends it.
func (o *outputPipes) forward(stream int, f *os.File) {
	b := make([]byte, readSize)
	for {
		n, err := f.Read(b)
		o.write(stream, b[:n])
		if err != nil {
			return
		}
	}
}

// write appends to a stream's file. Without a file the bytes are dropped.
func (o *outputPipes) write(stream int, b []byte) {
	if len(b) == 0 || !o.stored[stream] {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sink.Store(stream, b)
}

// drain copies what remains in the pipes of a container that has ended, so that nobody writes to
// them any more.
func (o *outputPipes) drain() {
	for _, f := range o.pipes {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0)) // ends forward
		}
	}
	o.work.Wait()
	for i, f := range o.pipes {
		if f == nil {
			continue
		}
		raw, err := f.SyscallConn()
		if err != nil {
			continue
		}
		b := make([]byte, readSize)
		_ = raw.Control(func(fd uintptr) {
			for {
				n, err := syscall.Read(int(fd), b)
				if err == syscall.EINTR {
					continue
				}
				if n <= 0 {
					return
				}
				o.write(i, b[:n])
			}
		})
	}
}

// close closes the pipes.
func (o *outputPipes) close() {
	if o == nil {
		return
	}
	for i, f := range o.pipes {
		if f != nil {
			f.Close()
			o.pipes[i] = nil
		}
	}
	o.work.Wait()
}

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

// output carries what a program prints out of the pipes of its run into the attempt's files. The program has each pipe open for
// reading too, so that it neither dies nor loses anything while nobody reads: it waits once the pipe is full.
type output struct {
	mu     sync.Mutex
	sink   *executor.Sink // guarded by mu but for Seen
	stored [2]bool        // the attempt has a file for the stream
	pipes  [2]*os.File
	work   sync.WaitGroup
}

// newOutput makes the pipes that are not there yet, and starts to carry. stored is what an earlier process has carried.
func newOutput(dir string, a *executor.Attempt, stored [2]int64, log *slog.Logger) (*output, error) {
	o := &output{sink: executor.NewSink(a, log, executor.StallTimeout), stored: [2]bool{a.Stdout != nil, a.Stderr != nil}}
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
			o.work.Go(func() { o.carry(i, f) })
		}
	}
	return o, nil
}

// openPipe opens a pipe of a run for reading and writing. The program may have put something else in its place.
func openPipe(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the pipe of a container: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		f.Close()
		return nil, fmt.Errorf("open the pipe of a container: %s is none any more", path)
	}
	return f, nil
}

// HoldOutput keeps what a run prints while nobody reads it, until the returned func is called: what is in a pipe is lost when the last
// process closes it. So the output of a program that ends between the death of one reader and the start of the next is not lost.
func (o *Options) HoldOutput(name string) (release func()) {
	var held []*os.File
	for _, pipe := range []string{stdoutPipe, stderrPipe} {
		if f, err := openPipe(filepath.Join(o.Dir, o.containerName(name), pipesDir, pipe)); err == nil { // none for a stream that goes with the other
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
	// pipeSize is how much a program may print while nobody reads, before it waits.
	pipeSize = 256 << 10
	// carrySize is how much is read at one time.
	carrySize = 64 << 10
)

// carry moves what comes through a pipe until drain ends it.
func (o *output) carry(stream int, f *os.File) {
	b := make([]byte, carrySize)
	for {
		n, err := f.Read(b)
		o.store(stream, b[:n])
		if err != nil {
			return
		}
	}
}

// store takes a piece of a stream. One that the attempt has no file for is dropped.
func (o *output) store(stream int, b []byte) {
	if len(b) == 0 || !o.stored[stream] {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sink.Store(stream, b)
}

// drain moves what the pipes still hold once the container has ended. Nobody writes to them any more.
func (o *output) drain() {
	for _, f := range o.pipes {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0)) // ends carry
		}
	}
	o.await()
	for i, f := range o.pipes {
		if f == nil {
			continue
		}
		raw, err := f.SyscallConn()
		if err != nil {
			continue
		}
		b := make([]byte, carrySize)
		_ = raw.Control(func(fd uintptr) {
			for {
				n, err := syscall.Read(int(fd), b)
				if err == syscall.EINTR {
					continue
				}
				if n <= 0 {
					return
				}
				o.store(i, b[:n])
			}
		})
	}
}

// await waits for the goroutines that carry.
func (o *output) await() { o.work.Wait() }

// close closes the pipes.
func (o *output) close() {
	if o == nil {
		return
	}
	for i, f := range o.pipes {
		if f != nil {
			f.Close()
			o.pipes[i] = nil
		}
	}
	o.await()
}

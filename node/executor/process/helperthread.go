package process

import (
	"context"
	"os"
	"runtime"

	"mlfnode/node/executor"

	"golang.org/x/sys/unix"
)

// helperThread is a goroutine that runs a v1 slot's attempts on a thread of its own, for callers on
// other threads.
type helperThread struct {
	requests chan attemptRequest
	outcomes chan executor.Outcome
	ended    chan struct{}
}

// attemptRequest is what Run passes to the thread.
type attemptRequest struct {
	ctx     context.Context
	attempt *executor.Attempt
}

func (s *slot) newHelperThread() (*helperThread, error) {
	g := &helperThread{requests: make(chan attemptRequest), outcomes: make(chan executor.Outcome),
		ended: make(chan struct{})}
	ready := make(chan error)
	go g.serve(s, ready)
	return g, <-ready
}

// serve never unlocks its thread, so the thread ends with it.
func (h *helperThread) serve(s *slot, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread can't serve. It is kept here until another goroutine has another thread.
		moved := make(chan error)
		go h.serve(s, moved)
		ready <- <-moved
		runtime.UnlockOSThread()
		return
	}
	defer close(h.ended)
	err := s.cgroup.addThread(unix.Gettid())
	ready <- err
	if err != nil {
		return
	}
	for o := range h.requests {
		h.outcomes <- s.runAttempt(o.ctx, o.attempt)
	}
}

package process

import (
	"context"
	"os"
	"runtime"

	"mlfnode/node/executor"

	"golang.org/x/sys/unix"
)

// guest is a goroutine that runs a v1 slot's attempts on a thread of its own, for callers that are elsewhere.
type guest struct {
	work  chan order
	done  chan executor.Outcome
	ended chan struct{}
}

// order is what Run hands over.
type order struct {
	ctx     context.Context
	attempt *executor.Attempt
}

func (s *processSlot) newGuest() (*guest, error) {
	g := &guest{work: make(chan order), done: make(chan executor.Outcome), ended: make(chan struct{})}
	ready := make(chan error)
	go g.serve(s, ready)
	return g, <-ready
}

// serve never unlocks its thread, so the thread ends with it.
func (g *guest) serve(s *processSlot, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread can't serve. It is held here until another goroutine has found another thread.
		moved := make(chan error)
		go g.serve(s, moved)
		ready <- <-moved
		runtime.UnlockOSThread()
		return
	}
	defer close(g.ended)
	err := s.cage.admit(unix.Gettid())
	ready <- err
	if err != nil {
		return
	}
	for o := range g.work {
		g.done <- s.attempt(o.ctx, o.attempt)
	}
}

package executor

import (
	"context"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// processSlot is a slot of Process. All its work is done on one thread, which belongs to it for life.
type processSlot struct {
	process *Process
	kin     *kin
	number  int
	cage    *cage // nil without cgroups
	finder  finder

	run   sync.Mutex // held during Run and Close
	work  chan order
	done  chan Outcome
	ended chan error // what the thread's end has to say
	shut  bool
}

// order is what Run hands to the slot's thread.
type order struct {
	ctx     context.Context
	attempt *Attempt
}

var _ Slot = (*processSlot)(nil)

// serve is the slot's goroutine. It never unlocks its thread, so the thread ends with it.
func (s *processSlot) serve(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread can't serve: in its cgroup it would stand for the whole agent. It waits here meanwhile, which
		// keeps the next goroutine off it, and is given back.
		moved := make(chan error)
		go s.serve(moved)
		ready <- <-moved
		runtime.UnlockOSThread()
		return
	}
	if group := s.process.group; group != nil {
		c, err := group.newCage(s.number)
		if err != nil {
			ready <- err
			return
		}
		s.cage = c
	}
	ready <- nil
	for o := range s.work {
		s.done <- s.attempt(o.ctx, o.attempt)
	}
	if s.cage != nil {
		s.ended <- s.cage.close()
		return
	}
	s.ended <- nil
}

// Run runs an attempt on the slot's thread.
func (s *processSlot) Run(ctx context.Context, a *Attempt) Outcome {
	s.run.Lock()
	defer s.run.Unlock()
	if s.shut {
		return refused(grid.ClassStart, "the slot is closed", exitNotRunnable)
	}
	s.work <- order{ctx, a}
	return <-s.done
}

// Close ends the slot's thread and removes its cgroup.
func (s *processSlot) Close() error {
	s.run.Lock()
	defer s.run.Unlock()
	if s.shut {
		return nil
	}
	s.shut = true
	close(s.work)
	return <-s.ended
}

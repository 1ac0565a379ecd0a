package process

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// processSlot is a slot of Process.
//
// With cgroups v1 an attempt must be started by a thread that sits in the slot's cgroup. That is the thread of the
// goroutine that made the slot, which is locked to it until Close. Run on any other goroutine is handed to a thread that is
// made for this, which costs some switches between threads for each attempt.
type processSlot struct {
	process *Executor
	kin     *kin
	cage    *cage // nil without cgroups
	home    int   // v1: the maker's thread while it sits in the cgroup, else 0
	finder  finder

	run   sync.Mutex // held during Run and Close
	guest *guest     // nil until it is needed
	shut  bool
}

var _ executor.Slot = (*processSlot)(nil)

// settle makes the slot's cgroup, if there are any.
func (s *processSlot) settle(n int) (err error) {
	if s.process.group == nil {
		return nil
	}
	if s.cage, err = s.process.group.newCage(n); err != nil {
		return err
	}
	if s.cage.group.unified {
		return nil
	}
	runtime.LockOSThread()
	tid := unix.Gettid()
	if tid == os.Getpid() || !s.process.claim(tid) {
		// The main thread can't serve: in the cgroup it would stand for the whole agent. Nor can one thread serve two slots.
		runtime.UnlockOSThread()
		if s.guest, err = s.newGuest(); err != nil {
			err = errors.Join(err, s.cage.close())
		}
		return err
	}
	s.home = tid
	if err = s.cage.admit(tid); err != nil {
		err = errors.Join(err, s.cage.close())
		s.leaveHome()
	}
	return err
}

// leaveHome gives up the maker's thread, which is no longer in the cgroup.
func (s *processSlot) leaveHome() {
	if s.home == 0 {
		return
	}
	s.process.unclaim(s.home)
	if unix.Gettid() == s.home {
		runtime.UnlockOSThread()
	}
	s.home = 0
}

// Run runs an attempt on a thread that sits in the slot's cgroup.
func (s *processSlot) Run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	s.run.Lock()
	defer s.run.Unlock()
	if s.shut {
		return refused(grid.ClassStart, "the slot is closed", executor.ExitNotRunnable)
	}
	if s.cage == nil || s.cage.group.unified || unix.Gettid() == s.home {
		// The program dies with the thread that started it, so that thread must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return s.attempt(ctx, a)
	}
	if s.guest == nil {
		g, err := s.newGuest()
		s.leaveHome()
		if err != nil {
			return refused(grid.ClassNode, "its cgroup can't be entered: "+err.Error(), executor.ExitNotRunnable)
		}
		s.guest = g
	}
	s.guest.work <- order{ctx, a}
	return <-s.guest.done
}

// Close frees the thread and removes the cgroup.
func (s *processSlot) Close() error {
	s.run.Lock()
	defer s.run.Unlock()
	if s.shut {
		return nil
	}
	s.shut = true
	if s.guest != nil {
		close(s.guest.work)
		<-s.guest.ended
	}
	if s.cage == nil {
		return nil
	}
	err := s.cage.close()
	s.leaveHome()
	return err
}

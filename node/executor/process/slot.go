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

// slot is a slot of an Executor.
//
// With cgroups v1 an attempt must be started by a thread that sits in the slot's cgroup. That is
// the thread of the goroutine that made the slot, which is locked to it until Close. Run on any
// other goroutine passes the attempt to a helper thread, which costs some thread switches for each
// attempt.
type slot struct {
	executor   *Executor
	tree       *processTree
	cgroup     *slotCgroup // nil without cgroups
	memory     *slotMemory // of the cgroup
	homeThread int         // v1: the maker's thread while it sits in the cgroup, else 0
	programs   lookupCache

	mu     sync.Mutex    // held during Run and Close
	helper *helperThread // nil until needed
	closed bool
}

var _ executor.Slot = (*slot)(nil)

// enterCgroup creates the slot's cgroup, where there are cgroups, and on v1 moves a thread into it.
func (s *slot) enterCgroup() (err error) {
	if s.executor.cgroup == nil {
		return nil
	}
	if s.cgroup, err = s.executor.cgroup.newSlot(); err != nil {
		return err
	}
	s.memory = &s.cgroup.memory
	if s.cgroup.group.unified {
		return nil
	}
	runtime.LockOSThread()
	tid := unix.Gettid()
	if tid == os.Getpid() || !s.cgroup.group.threads.claim(tid) {
		// The main thread can't serve: in the cgroup it would stand for the whole agent. And one
		// thread can't serve two slots.
		runtime.UnlockOSThread()
		if s.helper, err = s.newHelperThread(); err != nil {
			err = errors.Join(err, s.cgroup.close())
		}
		return err
	}
	s.homeThread = tid
	if err = s.cgroup.addThread(tid); err != nil {
		err = errors.Join(err, s.cgroup.close())
		s.releaseThread()
	}
	return err
}

// releaseThread gives up the maker's thread, which is no longer in the cgroup.
func (s *slot) releaseThread() {
	if s.homeThread == 0 {
		return
	}
	s.cgroup.group.threads.release(s.homeThread)
	if unix.Gettid() == s.homeThread {
		runtime.UnlockOSThread()
	}
	s.homeThread = 0
}

// Run runs an attempt on a thread that sits in the slot's cgroup.
func (s *slot) Run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return refused(grid.ClassStart, "the slot is closed", executor.ExitNotRunnable)
	}
	if s.cgroup == nil || s.cgroup.group.unified || unix.Gettid() == s.homeThread {
		// The program dies with the thread that started it, so that thread must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return s.runAttempt(ctx, a)
	}
	if s.helper == nil {
		g, err := s.newHelperThread()
		s.releaseThread()
		if err != nil {
			return refused(grid.ClassNode, "its cgroup can't be entered: "+err.Error(), executor.ExitNotRunnable)
		}
		s.helper = g
	}
	s.helper.requests <- attemptRequest{ctx, a}
	return <-s.helper.outcomes
}

// Close releases the thread and removes the cgroup.
func (s *slot) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.helper != nil {
		close(s.helper.requests)
		<-s.helper.ended
	}
	if s.cgroup == nil {
		return nil
	}
	err := s.cgroup.close()
	s.releaseThread()
	return err
}

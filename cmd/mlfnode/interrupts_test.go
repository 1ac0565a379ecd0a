package main

import (
	"context"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// TestTakeExtra sends this process a signal that only a taker who asks for it gets.
func TestTakeExtra(t *testing.T) {
	i := &interrupts{}
	ctx := i.listen(context.Background())
	defer signal.Stop(i.signals)
	signals, release := i.capture(syscall.SIGUSR2)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-signals:
		if got != syscall.SIGUSR2 {
			t.Errorf("got %v, want %v", got, syscall.SIGUSR2)
		}
	case <-time.After(time.Minute):
		t.Error("got no signal")
	}
	release()
	if ctx.Err() != nil {
		t.Error("the signal has ended the command")
	}
}

// TestPassLate brings signals that were on their way when their taker went: a closed pipe ends
// nothing, while Ctrl-C ends the command.
func TestPassLate(t *testing.T) {
	i, cancelled := &interrupts{}, 0
	cancel := func() { cancelled++ }
	_, release := i.capture(syscall.SIGPIPE)
	release()
	i.deliver(syscall.SIGPIPE, cancel)
	if cancelled != 0 || i.first != nil {
		t.Errorf("a late SIGPIPE: cancelled %d times, first is %v", cancelled, i.first)
	}
	i.deliver(syscall.SIGINT, cancel)
	i.deliver(syscall.SIGPIPE, cancel) // it would end this process
	if cancelled != 1 || i.first != syscall.SIGINT {
		t.Errorf("Ctrl-C: cancelled %d times, first is %v", cancelled, i.first)
	}
}

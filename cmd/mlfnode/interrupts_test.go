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
	signals, release := i.take(syscall.SIGUSR2)
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

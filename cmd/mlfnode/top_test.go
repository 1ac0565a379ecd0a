package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestTopWithoutATerminal is wrong usage, and says what prints the same as text.
func TestTopWithoutATerminal(t *testing.T) {
	if said := open(t, "top").exit(exitUsage); !strings.Contains(said, "mlfnode sweeps or mlfnode members") {
		t.Errorf("got %q", said)
	}
}

// TestHeldOutput keeps what a node in this process says off the screen until the screen is gone.
func TestHeldOutput(t *testing.T) {
	var out strings.Builder
	c := &heldOutput{w: &out}
	fmt.Fprint(c, "before ")
	c.hold()
	fmt.Fprint(c, "during ")
	fmt.Fprint(c, strings.Repeat("x", heldSize))
	if out.String() != "before " {
		t.Errorf("got %q on the screen", out.String())
	}
	c.release()
	fmt.Fprint(c, "after")
	if out.String() != "before during after" {
		t.Errorf("got %q", out.String())
	}
}

// TestFailureAfterTakeover has the node fail that this process became after another terminal's went
// away.
func TestFailureAfterTakeover(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s := &topSession{failed: make(chan error, 1)}
	first, second := make(chan error, 1), make(chan error, 1)
	s.watchFailure(ctx, first)
	s.watchFailure(ctx, second)
	want := errors.New("the log is broken")
	second <- want
	if got := <-s.failed; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	stop()
	s.watches.Wait()
}

package main

import (
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

// TestCurtain keeps what a node in this process says off the screen until the screen is gone.
func TestCurtain(t *testing.T) {
	var out strings.Builder
	c := &curtain{w: &out}
	fmt.Fprint(c, "before ")
	c.lower()
	fmt.Fprint(c, "during ")
	fmt.Fprint(c, strings.Repeat("x", curtainSize))
	if out.String() != "before " {
		t.Errorf("got %q on the screen", out.String())
	}
	c.raise()
	fmt.Fprint(c, "after")
	if out.String() != "before during after" {
		t.Errorf("got %q", out.String())
	}
}

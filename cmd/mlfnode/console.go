package main

import (
	"io"
)

// console is where a command prints its results and messages, and how.
type console struct {
	stdout  *screen
	stderr  io.Writer
	json    bool // results are printed as JSON
	noColor bool
}

func newConsole(stdout, stderr io.Writer) *console {
	return &console{stdout: &screen{w: stdout}, stderr: stderr}
}

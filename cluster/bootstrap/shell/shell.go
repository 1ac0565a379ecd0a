// Package shell runs shell scripts on machines: on others over ssh, as OpenSSH's client would reach
// them (Dialer), and on this one (Local). A program is a script for /bin/sh, whatever the login
// shell of the user is. Output of that shell's start-up files and banners is not part of the
// program's output.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid/printable"
)

// Machine is where programs run.
type Machine interface {
	// Run runs a program for /bin/sh until it exits. Its standard input is stdin, nil for none; its
	// standard output goes to stdout, nil discards it. The error is an *ExitError if the program
	// exited with a code other than 0, and a *Problem if the machine was lost or could not run it.
	// When ctx ends, Run returns; the program may continue. Run may be called concurrently.
	Run(ctx context.Context, program string, stdin io.Reader, stdout io.Writer) error
	// Close ends the connection.
	Close() error
}

// Problem is what keeps a machine from being used.
type Problem = protocol.Problem

// ExitError is returned by Run for a program that did not end with 0.
type ExitError struct {
	Code   int    // exit code; 128 and more for a signal, as in a shell
	Stderr string // the last of what it wrote to standard error
}

// Error gives the program's own words.
func (e *ExitError) Error() string {
	if said := strings.TrimSpace(e.Stderr); said != "" {
		return said
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// outputLimit is how much a program may print for Output. The longest answer there is names every
// file of a project.
const outputLimit = 64 << 20

// Output runs a program and gives what it printed. One that prints without end is given up.
func Output(ctx context.Context, m Machine, program string, stdin io.Reader) (string, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out := &limitedBuffer{remaining: outputLimit, onFull: func() {
		stop(&Problem{Cause: "the machine does not stop printing",
			Cure: "log in and see what its start-up files and mlfnode print"})
	}}
	err := m.Run(ctx, program, stdin, out)
	return out.text.String(), err
}

// limitedBuffer keeps what is written to it up to a limit, and calls full once when that is
// reached.
type limitedBuffer struct {
	text      bytes.Buffer
	remaining int
	onFull    func()
}

// Write implements io.Writer.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(p) > b.remaining {
		b.remaining = 0
		b.onFull()
		return len(p), nil
	}
	b.remaining -= len(p)
	return b.text.Write(p)
}

// Local is this machine.
type Local struct{}

var _ Machine = Local{}

// closeDelay is how long Run waits for output of what a program has left behind.
const closeDelay = time.Second

// Run implements Machine.
func (Local) Run(ctx context.Context, program string, stdin io.Reader, stdout io.Writer) error {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", program)
	stderr := &tail{}
	c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = stdin, stdout, stderr, closeDelay
	err := c.Run()
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed:
		return &ExitError{Code: exit.ExitCode(), Stderr: stderr.String()}
	}
	return err
}

// Close implements Machine.
func (Local) Close() error { return nil }

// Quote makes one word of the shell's language from any text without NUL.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// tail keeps the last of what is written to it.
type tail struct{ kept []byte }

// tailSize is how much of a program's stderr is kept.
const tailSize = 8 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if n := len(t.kept) - tailSize; n > 0 {
		t.kept = append(t.kept[:0], t.kept[n:]...)
	}
	return len(p), nil
}

// String gives it as text that is safe to show.
func (t *tail) String() string {
	text := printable.Text(string(t.kept), tailSize)
	if text != "" && t.kept[len(t.kept)-1] == '\n' {
		text += "\n"
	}
	return text
}

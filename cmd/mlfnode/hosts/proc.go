package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Timeout is how long the methods of this package wait for something that should happen soon, on a
// machine that may be busy.
const Timeout = 60 * time.Second

// Proc is a program in the background on a host. Its output goes to a file.
type Proc struct {
	Args []string
	File string // its output

	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
}

func (p *Proc) String() string { return filepath.Base(p.cmd.Path) + " " + strings.Join(p.Args, " ") }

// PID returns its process ID, as the machine sees it.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Output returns what it has printed so far.
func (p *Proc) Output() string {
	text, err := os.ReadFile(p.File)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// WaitForOutput waits until it has printed the text.
func (p *Proc) WaitForOutput(text string) {
	p.t.Helper()
	WaitFor(p.t, Timeout, func() error {
		out := p.Output()
		if strings.Contains(out, text) {
			return nil
		}
		return fmt.Errorf("%s: got\n%s\nwant %q in it", p, tail(out), text)
	})
}

// Signal sends it a signal. It may have ended.
func (p *Proc) Signal(sig unix.Signal) { _ = p.cmd.Process.Signal(sig) }

// Kill kills it, and returns when it is gone. What it has started is not killed.
func (p *Proc) Kill() {
	p.Signal(unix.SIGKILL)
	<-p.ended
}

// Ended returns a channel that is closed when it has ended.
func (p *Proc) Ended() <-chan struct{} { return p.ended }

// Exit waits for its end and returns the exit code, or -1 after a signal.
func (p *Proc) Exit(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("%s does not end within %v:\n%s", p, limit, tail(p.Output()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// WaitFor calls ok repeatedly until it returns nil, and ends the test with the last error when the
// time is over.
func WaitFor(t testing.TB, limit time.Duration, ok func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	over := time.After(limit)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("not within %v: %v", limit, err)
		}
	}
}

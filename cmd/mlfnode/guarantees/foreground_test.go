package guarantees

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
)

// foreground is a master that somebody has started on a terminal, with one trial that runs.
type foreground struct {
	t    *testing.T
	host *hosts.Host
	term *hosts.Terminal
	mark string // in the command line of the trial's program
	gate string // the program ends by itself once this file is there
}

// newForeground starts them. The trial has ten minutes to end when it is told to, and begins with a
// script, which may ignore that.
func newForeground(t *testing.T, script string) *foreground {
	t.Helper()
	if testing.Short() {
		t.Skip("a machine of its own takes its time")
	}
	harness := hosts.New(t, 1, hosts.Options{Program: program, Env: []string{"MLF_CPUS=2"}})
	f := &foreground{t: t, host: harness.Hosts[0], mark: newMark(t), gate: filepath.Join(harness.Dir, "gate")}
	f.term = f.host.OnTerminal(f.host.Command("master"))
	f.term.Expect("node is up")
	project, began := filepath.Join(harness.Dir, "lasting"), filepath.Join(harness.Dir, "began")
	if err := os.Mkdir(project, 0o755); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("tasks:\n  lasting:\n    grace: 10m\n    command: [\"sh\", \"-c\", \"%s; : > %s; until test -e %s; do sleep 0.05; done\", \"%s\"]\n",
		script, began, f.gate, f.mark)
	if err := os.WriteFile(filepath.Join(project, "project.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	f.host.Must("sweep", "--detach", project)
	awaitFile(t, began)
	return f
}

// checkGone waits until nothing of the trial is left.
func (f *foreground) checkGone() {
	f.t.Helper()
	hosts.WaitFor(f.t, orphanLimit, func() error {
		if left := processes(f.t, f.mark); len(left) > 0 {
			return fmt.Errorf("left of the trial: %v", left)
		}
		return nil
	})
}

// goesOn starts the master again, which runs the trial that was stopped once more.
func (f *foreground) goesOn() {
	f.t.Helper()
	if err := os.WriteFile(f.gate, nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.host.Agent.Start("master").WaitForOutput("node is up")
	f.host.Must("resume", "last")
	if got := f.host.Must("sweeps", "--json"); !strings.Contains(got, `"succeeded":1`) {
		f.t.Errorf("got %s, want the trial run again", got)
	}
}

// TestTerminalOfAMaster closes the terminal that a master runs on: the master ends, as if it had
// been told to, with its trial.
func TestTerminalOfAMaster(t *testing.T) {
	t.Parallel()
	f := newForeground(t, "true")
	f.term.HangUp()
	if code := f.term.Exit(hosts.Timeout); code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	f.checkGone()
	f.goesOn()
}

// TestInsistOnTheEnd presses Ctrl-C where a master runs a trial that takes its time: the first one
// tells it to end, the second one kills it.
func TestInsistOnTheEnd(t *testing.T) {
	t.Parallel()
	f := newForeground(t, "trap '' TERM")
	f.term.Press("\x03")
	f.term.Expect("node is stopping")
	if len(processes(t, f.mark)) == 0 {
		t.Error("the trial has not had its grace")
	}
	f.term.Press("\x03")
	f.term.Expect("mlfnode: killing programs; press Ctrl-C again to end this process without waiting for them")
	if code, screen := f.term.Close(hosts.Timeout); code != 0 {
		t.Errorf("got exit code %d, want 0\n%s", code, screen)
	}
	f.checkGone()
	f.goesOn()
}

// TestInsistTwice has what runs the trial stand still, so that it can't be killed: the third Ctrl-C
// ends the master without it. When it moves again, it ends itself and the trial, whose master does
// not come back.
func TestInsistTwice(t *testing.T) {
	t.Parallel()
	f := newForeground(t, "trap '' TERM")
	stuck := shims(f.host)
	for _, pid := range stuck {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	f.term.Press("\x03")
	f.term.Expect("node is stopping")
	f.term.Press("\x03")
	f.term.Expect("press Ctrl-C again")
	select {
	case <-f.term.Ended():
		t.Fatal("the master has ended although nothing has killed its program")
	case <-time.After(time.Second):
	}
	f.term.Press("\x03")
	if code := f.term.Exit(hosts.Timeout); code != -1 {
		t.Errorf("got exit code %d, want death by a signal", code)
	}
	for _, pid := range stuck {
		_ = unix.Kill(pid, unix.SIGCONT) // it may be gone
	}
	f.checkGone()
	f.goesOn()
}

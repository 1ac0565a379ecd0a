package guarantees

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// terminalTimeout is how long a terminal may take for what should happen immediately.
const terminalTimeout = 30 * time.Second

// terminal is a command that runs, with what it has printed so far.
type terminal struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	text  strings.Builder
	grown chan struct{} // closed when text has grown
}

// Write implements io.Writer.
func (r *terminal) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(p)
	close(r.grown)
	r.grown = make(chan struct{})
	return len(p), nil
}

func (r *terminal) shown() (string, chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String(), r.grown
}

// open starts a command in a terminal of its own.
func (h *home) open(args ...string) *terminal {
	h.t.Helper()
	r := &terminal{t: h.t, cmd: h.command(args...), ended: make(chan struct{}), grown: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait() // the exit code says it all
	}()
	h.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

// see waits until the text was shown.
func (r *terminal) see(text string) {
	r.t.Helper()
	timeout := time.After(terminalTimeout)
	for {
		shown, grown := r.shown()
		if strings.Contains(shown, text) {
			return
		}
		select {
		case <-grown:
		case <-timeout:
			r.t.Fatalf("%s: got\n%s\nwant %q in it", strings.Join(r.cmd.Args[1:], " "), tail(shown), text)
		}
	}
}

// exit waits for the end, and wants this exit code.
func (r *terminal) exit(code int) string {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(terminalTimeout):
		shown, _ := r.shown()
		r.t.Fatalf("%s does not end:\n%s", strings.Join(r.cmd.Args[1:], " "), tail(shown))
	}
	shown, _ := r.shown()
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("%s: got exit code %d, want %d\n%s", strings.Join(r.cmd.Args[1:], " "), got, code, tail(shown))
	}
	return shown
}

func (r *terminal) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// gate is a command for trials that wait until the gate is open.
func (h *home) gate(name string) (command []string, open func()) {
	file := filepath.Join(h.dir, name)
	script := `echo waiting; until [ -e ` + file + ` ]; do sleep 0.02; done; echo done`
	return []string{"--", "sh", "-c", script, name}, func() {
		h.t.Helper()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}

func sweepOf(command []string, flags ...string) []string {
	return append(append([]string{"sweep"}, flags...), command...)
}

// waiting opens a terminal with a sweep, which gets this name, whose only trial waits until open is
// called.
func (h *home) waiting(id grid.SweepID) (t *terminal, open func()) {
	h.t.Helper()
	command, open := h.gate(string(id))
	t = h.open(sweepOf(command, "--set", "a=1")...)
	t.see(string(id) + "/0 | waiting")
	return t, open
}

// The first terminal's sweep ends earlier than that of the second, which it hosts: it stays until
// that is done too.
func TestSecondTerminal(t *testing.T) {
	h := newHome(t, "MLF_CPUS=2")
	first, open1 := h.waiting("sh-1")
	second, open2 := h.waiting("sh-2")
	follow := h.open("logs", "-f", "sh-2")
	follow.see("sh-2/0 | waiting")
	if got := h.must("sweeps", "--json"); strings.Count(got, `"state":"running"`) != 2 {
		t.Errorf("got %s, want two sweeps that run", got)
	}
	open1()
	first.see("sh-1 finished: 1 of 1 succeeded")
	first.see("this terminal stays open while it runs sweeps of other terminals")
	open2()
	second.see("sh-2 finished: 1 of 1 succeeded")
	second.exit(0)
	first.exit(0)
	if got := follow.exit(0); got != "sh-2/0 | waiting\nsh-2/0 | done\n" {
		t.Errorf("logs -f: got %q", got)
	}
}

// The terminal that hosts the node is killed: the other one takes over, and nothing is shown twice.
func TestTakeover(t *testing.T) {
	h := newHome(t, "MLF_CPUS=2")
	first, open1 := h.waiting("sh-1")
	second, open2 := h.waiting("sh-2")
	first.signal(syscall.SIGKILL)
	<-first.ended
	open1()
	open2()
	shown := second.exit(0)
	if !strings.Contains(shown, "sh-2 finished: 1 of 1 succeeded") || strings.Count(shown, "| done") != 1 {
		t.Errorf("got\n%s\nwant the sweep finished once", shown)
	}
	// The killed terminal's sweep was run on by the second terminal, or is resumed now.
	if got := h.must("resume", "sh-1"); strings.Contains(got, "failed") {
		t.Errorf("got %s", got)
	}
	h.read(func(c *api.Client) {
		for _, id := range []grid.SweepID{"sh-1", "sh-2"} {
			if v, err := c.Sweeps().Get(t.Context(), id); err != nil || v.Succeeded != 1 ||
				v.State != grid.SweepFinished {
				t.Errorf("%s: got %+v, %v, want it finished", id, v, err)
			}
		}
	})
}

// TestNextCommandAfterAKill kills a node in the middle of a sweep, again and again: the store then
// repairs itself, which is of no concern to the next command: it continues without a message.
func TestNextCommandAfterAKill(t *testing.T) {
	h := newHome(t, "MLF_CPUS=2")
	for i := range scale(4, 20) {
		id := fmt.Sprintf("sh-%d", i+1)
		sweep := h.open("sweep", "--set", "i=0:100000", "--", "sh", "-c", "echo {i}")
		sweep.see(id + "/20 | 20")
		sweep.signal(syscall.SIGKILL)
		<-sweep.ended
		next := h.open("cancel", id)
		if shown := next.exit(0); shown != id+" is cancelled\n" {
			t.Errorf("after kill %d the next command says\n%s", i+1, shown)
		}
	}
}

func TestCancelFromSecondTerminal(t *testing.T) {
	h := newHome(t, "MLF_CPUS=2")
	gate, _ := h.gate("never")
	mark := newMark(t)
	first := h.open(sweepOf(append(gate, mark), "--set", "a=1,2,3")...)
	first.see("| waiting")
	h.must("cancel", "sh-1")
	if shown := first.exit(1); !strings.Contains(shown, "sh-1 cancelled: 0 of 3 succeeded, 3 cancelled") {
		t.Errorf("got\n%s", shown)
	}
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("got processes %v after the cancel", left)
	}
}

// Ctrl-C once lets running trials end and says how to go on; resume goes on in the foreground.
func TestInterruptOnce(t *testing.T) {
	h := newHome(t, "MLF_CPUS=1")
	gate, open := h.gate("gate")
	first := h.open(sweepOf(gate, "--set", "a=1,2")...)
	first.see("sh-1/0 | waiting")
	first.signal(syscall.SIGINT)
	first.see("sh-1 is paused; running trials finish or save their state; press Ctrl-C again to kill them")
	open()
	if shown := first.exit(130); !strings.Contains(shown, "resume with: mlfnode resume sh-1") ||
		strings.Contains(shown, "sh-1/1 |") {
		t.Errorf("got\n%s", shown)
	}
	h.read(func(c *api.Client) {
		if v, err := c.Sweeps().Get(t.Context(), "sh-1"); err != nil || v.Succeeded != 1 || v.Pending != 1 ||
			v.State != grid.SweepPaused {
			t.Errorf("got %+v, %v, want one trial succeeded and one pending", v, err)
		}
	})
	if shown := h.must("resume", "last"); !strings.Contains(shown, "sh-1/1 | done") {
		t.Errorf("resume: got\n%s", shown)
	}
}

// Ctrl-C twice kills, and what was killed counts as not run.
func TestInterruptTwice(t *testing.T) {
	h := newHome(t, "MLF_CPUS=1")
	gate, open := h.gate("gate")
	mark := newMark(t)
	first := h.open(sweepOf(append(gate, mark), "--set", "a=1,2")...)
	first.see("sh-1/0 | waiting")
	first.signal(syscall.SIGINT)
	first.see("sh-1 is paused")
	first.signal(syscall.SIGINT)
	first.exit(130)
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("got processes %v after the second Ctrl-C", left)
	}
	open()
	h.must("resume", "sh-1")
	h.read(func(c *api.Client) { checkResults(t, trials(t, c), 2, grid.Succeeded) })
}

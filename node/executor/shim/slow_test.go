package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// shimOf gives the process of the only shim.
func (l *agents) shimOf() processRecord {
	l.Helper()
	dirs, err := shimDirsIn(l.o.Dir)
	if err != nil || len(dirs) != 1 {
		l.Fatalf("shims: got %v, %v; want one", dirs, err)
	}
	var self processRecord
	if err := dirs[0].load(processFile, &self); err != nil {
		l.Fatal(err)
	}
	return self
}

// TestSlowShimIsTakenBack stops a shim, as if it were swapped out, while its agent is replaced: for
// longer than it waits for an agent, and for longer than it once had to answer. Its run goes on to
// its end.
func TestSlowShimIsTakenBack(t *testing.T) {
	t.Parallel()
	l := killedAgent(t, time.Second, map[string]string{"a": wait + "exit 7", "b": wait + "exit 0"})
	self := l.shimOf()
	if err := syscall.Kill(self.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-time.After(helloTimeout + time.Second)
		_ = syscall.Kill(self.PID, syscall.SIGCONT)
	}()
	c := l.open()
	l.goOn("a", "b")
	expect(t, l.resumed(c, "a"), grid.ClassExit, 7, "exit code 7")
	expect(t, l.resumed(c, "b"), grid.ClassNone, 0, "")
}

func TestCountdownCountsOnlyRunningTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan time.Time, 4)
		c := &countdown{over: func() { over <- time.Now() }}
		began := time.Now()
		c.Reset(10 * time.Second)
		if got := (<-over).Sub(began); got != 10*time.Second {
			t.Errorf("got over after %v, want 10s", got)
		}
		c.Reset(10 * time.Second)
		c.Stop()
		time.Sleep(time.Minute) // the fake clock of the bubble
		if len(over) != 0 {
			t.Error("over although it was stopped")
		}
		c.Reset(10 * time.Second)
		for range 100 { // each time the process stands still for an hour within a step
			c.mu.Lock()
			life := c.life
			c.begun = c.begun.Add(-time.Hour)
			c.timer.Stop()
			c.mu.Unlock()
			c.tick(life)
		}
		if len(over) != 0 || c.left != countSteps {
			t.Errorf("got %d of %d steps left, over %d times; want them all", c.left, countSteps, len(over))
		}
		c.Reset(time.Second)
		<-over
		if time.Sleep(time.Minute); len(over) != 0 {
			t.Error("over twice")
		}
	})
}

// TestShimOutOfFileDescriptors leaves a shim without descriptors: no attempt may begin without its
// output, and no failure is the trial's.
func TestShimOutOfFileDescriptors(t *testing.T) {
	o := options(t)
	c := started(t, o)
	dir := t.TempDir()
	s := slotOf(t, c)
	expect(t, s.Run(t.Context(), script(t, dir, "warm", "exit 0")), grid.ClassNone, 0, "")
	pid := c.current.shim.PID
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: 4096}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for missing := range 4 { // from no file at all to one less than it needs
		limit(len(open) - 2 + missing)
		o := s.Run(t.Context(), script(t, dir, fmt.Sprint("short", missing), "echo ran"))
		if o.Class != grid.ClassNode && o.Class != grid.ClassNone {
			t.Errorf("%d files short: got class %q (%s), want the node's", 4-missing, o.Class, o.Reason)
		}
		ran, err := os.ReadFile(filepath.Join(dir, "stdout"))
		if err != nil || o.Class == grid.ClassNone && !strings.HasSuffix(string(ran), "ran\n") {
			t.Errorf("a run that succeeded has the output %q, %v", ran, err)
		}
	}
	limit(1024)
	expect(t, s.Run(t.Context(), script(t, dir, "again", "exit 5")), grid.ClassExit, 5, "exit code 5")
}

// TestExitReasonOfAShim extracts the cause from what a shim and its wrapper have printed.
func TestExitReasonOfAShim(t *testing.T) {
	for text, want := range map[string]string{
		"": "it ended immediately",
		"time=1 level=ERROR msg=\"shim ended\" shim=1 err=\"listen on the shim's socket: no space left on device\"\nmlfnode: the shim ended with status 1\n": "it ended immediately: listen on the shim's socket: no space left on device",
		"time=1 level=ERROR msg=\"shim ended\" shim=1 err=denied\nmlfnode: the shim ended with status 1\n":                                                   "it ended immediately: denied",
		"time=1 level=INFO msg=running err=no\nFailed to start transient scope unit: Unit mlfnode-shim-1.scope was already loaded.\n":                        "it ended immediately: time=1 level=INFO msg=running err=no; Failed to start transient scope unit: Unit mlfnode-shim-1.scope was already loaded.",
		"1\n2\n3\n4\n": "it ended immediately: 2; 3; 4",
	} {
		p := newShimDir(t.TempDir(), 1)
		if err := os.Mkdir(p.path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.path, logFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := exitReason(p); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// TestShimStartsWhileItsProgramIsReplaced removes the program's file, as an upgrade may do for a
// moment.
func TestShimStartsWhileItsProgramIsReplaced(t *testing.T) {
	o := options(t)
	o.Program = ""
	c := open(t, o)
	c.o.Program = filepath.Join(t.TempDir(), "gone")
	dir := t.TempDir()
	expect(t, slotOf(t, c).Run(t.Context(), script(t, dir, "a", "exit 3")), grid.ClassExit, 3, "exit code 3")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o)
}

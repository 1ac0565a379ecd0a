package overssh

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestMachinesAreStartedAnew has machines lose their power: without systemd their nodes come back
// with the next up, and go on with what they had.
func TestMachinesAreStartedAnew(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.laptop.Must("up", "-a", "host1,host2", "-r", "ML", "-m", "1", "-w", "2")
	l.laptop.Must("sweep", "--detach", "--set", "i=1:7", "--", "sh", "-c", "echo begin; sleep 1; echo end")
	for _, h := range l.Hosts[:2] {
		wait(700 * time.Millisecond)
		h.PowerCut()
		h.Boot()
		want := h.Name + ": the node is not running\n  try: mlfnode up -f\n"
		if r := l.laptop.Try("status"); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("status: exit code %d, want 1 and %q:\n%s", r.Code, want, r.Stderr)
		}
		wantLine(t, l.laptop.Must("up", "-f"), h.Name, "started")
	}
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := len(l.trials("succeeded")); n != 6 {
			return fmt.Errorf("%d trials succeeded, want 6", n)
		}
		return nil
	})
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestFollowedThroughRestart follows a sweep from the laptop while every node restarts.
func TestFollowedThroughRestart(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.laptop.Must("up", "-a", "host1,host2", "-r", "ML", "-m", "1", "-w", "1,2")
	sweep := l.laptop.Start("sweep", "--set", "i=1:13", "--", "sh", "-c", "echo begin; sleep 1; echo end {i}")
	sweep.WaitForOutput("begin")
	l.laptop.Must("restart")
	if code := sweep.Exit(hosts.Timeout); code != 0 {
		t.Errorf("exit code %d of the sweep, want 0:\n%s", code, sweep.Output())
	}
	if n := len(l.trials("succeeded")); n != 12 {
		t.Errorf("%d trials succeeded, want 12", n)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

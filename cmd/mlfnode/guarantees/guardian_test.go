package guarantees

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestNoOrphanOfANodeThatDies ends the node of a terminal in ways that it can't answer, or that a
// user does by the way, under a trial whose processes have left its session and cleared their
// environment. All are gone immediately, and no other command of mlfnode has run.
func TestNoOrphanOfANodeThatDies(t *testing.T) {
	if testing.Short() {
		t.Skip("its programs are not those that -race looks at")
	}
	for _, c := range []struct {
		name string
		end  func(cmd *exec.Cmd, out io.Closer)
	}{
		{"killed", func(cmd *exec.Cmd, _ io.Closer) { _ = cmd.Process.Kill() }},
		{"aborted", func(cmd *exec.Cmd, _ io.Closer) { _ = cmd.Process.Signal(syscall.SIGABRT) }},
		{"hung up", func(cmd *exec.Cmd, _ io.Closer) { _ = cmd.Process.Signal(syscall.SIGHUP) }},
		{"its reader is gone", func(_ *exec.Cmd, out io.Closer) { out.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, mark := newHome(t), newMark(t)
			script := fmt.Sprintf(`setsid sh -c 'sleep 300; : %[1]s' &
(setsid sh -c 'sleep 300; : %[1]s' &)
trap : HUP TERM
while :; do echo tick; sleep 0.1; done; : %[1]s`, mark)
			cmd := h.command("sweep", "--set", "i=0:2", "--max-parallel", "1", "--", "sh", "-c", script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill() }()
			if line, err := bufio.NewReader(out).ReadString('\n'); !strings.Contains(line, "tick") {
				t.Fatalf("sweep printed %q, %v", line, err)
			}
			if got := len(processes(t, mark)); got < 4 { // the sweep itself, the program and two that it has started
				t.Fatalf("processes: got %d, want the trial's", got)
			}
			c.end(cmd, out)
			_ = cmd.Wait()
			hosts.WaitFor(t, 15*time.Second, func() error {
				if left := processes(t, mark); len(left) > 0 {
					return fmt.Errorf("left behind: %s", strings.Join(left, "\n"))
				}
				return nil
			})
		})
	}
}

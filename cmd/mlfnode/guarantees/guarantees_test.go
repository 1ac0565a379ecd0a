package guarantees

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// worker is a trial of some 40 ms that prints to both streams and leaves a process behind that got
// away from its group. Its mark is found in command lines.
const worker = `mark=$1; shift
echo "begin $1"; echo "oops $1" >&2
setsid sh -c "sleep 300; : $mark" >/dev/null 2>&1 &
for i in 1 2 3 4 5 6 7 8; do echo "$1 line $i"; sleep 0.005; done
echo "end $1"`

func wantOutput(index int64) map[string]string {
	arg := fmt.Sprintf("--i=%d", index)
	var b strings.Builder
	fmt.Fprintf(&b, "begin %s\n", arg)
	for i := 1; i <= 8; i++ {
		fmt.Fprintf(&b, "%s line %d\n", arg, i)
	}
	fmt.Fprintf(&b, "end %s\n", arg)
	return map[string]string{"stdout": b.String(), "stderr": "oops " + arg + "\n"}
}

func newMark(t *testing.T) string { return fmt.Sprintf("mark-%s-%d", t.Name(), time.Now().UnixNano()) }

// checkWhole fails unless every trial has one result, its whole output, and nothing left running.
func checkWhole(t *testing.T, h *home, mark string, count int) {
	t.Helper()
	h.read(func(c *api.Client) {
		all := trials(t, c)
		checkResults(t, all, count, grid.Succeeded)
		for _, tr := range all {
			want, got := wantOutput(tr.Index), output(t, c, tr.Index)
			for stream := range want {
				if got[stream] != want[stream] {
					t.Errorf("trial %d, %s: got %q, want %q", tr.Index, stream, got[stream], want[stream])
				}
			}
		}
	})
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

// TestNoLostTrial kills mlfnode at 50 random moments of a sweep of 500 trials and goes on each
// time. It also shows one result, no lost output and no orphan under the same faults.
func TestNoLostTrial(t *testing.T) {
	kills, count := 50, 500
	if testing.Short() {
		kills, count = 8, 80
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHome(t, "MLF_CPUS=4")
	mark := newMark(t)
	args := []string{"sweep", "-q", "--set", fmt.Sprintf("i=0:%d", count), "--", "sh", "-c", worker, "sh", mark}
	done := 0
	for range kills {
		after := 60*time.Millisecond + time.Duration(random.Int64N(int64(400*time.Millisecond)))
		if h.interruptAfter(after, syscall.SIGKILL, args...) {
			break
		}
		done++
		if h.submitted() {
			args = []string{"resume", "-q", "last"}
		}
	}
	t.Logf("killed %d times", done)
	h.must(args...)
	checkWhole(t, h, mark, count)
}

// submitted reports whether the sweep was stored before the kill. Its number can be above 1: one
// that was taken before it was stored is gone.
func (h *home) submitted() bool {
	return strings.Contains(h.must("sweeps", "--json"), `"sweep":"`)
}

// TestNoLostTrialOnInterrupt pauses by Ctrl-C again and again, at any moment of the command: no
// running trial is killed.
func TestNoLostTrialOnInterrupt(t *testing.T) {
	h := newHome(t, "MLF_CPUS=4")
	mark := newMark(t)
	args := []string{"sweep", "-q", "--set", "i=0:100", "--", "sh", "-c", worker, "sh", mark}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		cmd := h.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("mlfnode %v: %v", args, err)
			}
		case <-time.After(time.Duration(random.Int64N(int64(250 * time.Millisecond)))):
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			<-ended
			switch code := cmd.ProcessState.ExitCode(); code {
			case 130, 0, -1: // it had just finished; it did not listen to signals yet
			default:
				t.Fatalf("exit code after Ctrl-C: got %d, want 130", code)
			}
		}
		if h.submitted() {
			args = []string{"resume", "-q", "last"}
		}
		if strings.Contains(h.must("sweeps", "--json"), `"finished"`) {
			break
		}
	}
	if !strings.Contains(h.must("sweeps", "--json"), `"finished"`) {
		h.must(args...)
	}
	checkWhole(t, h, mark, 100)
	h.read(func(c *api.Client) {
		for _, tr := range trials(t, c) {
			if tr.Attempts != 1 {
				t.Errorf("trial %d ran %d times although every pause let it end", tr.Index, tr.Attempts)
			}
		}
	})
}

// TestOneResult lets attempts die and finish in between, and counts how often each index is there.
func TestOneResult(t *testing.T) {
	h := newHome(t, "MLF_CPUS=4")
	runs := filepath.Join(h.dir, "runs")
	args := []string{"sweep", "-q", "--set", "i=0:40", "--", "sh", "-c", "echo run >>" + runs + "; sleep 0.05", "sh"}
	for range 5 {
		before := countLines(runs)
		h.interruptOnce(func() bool { return countLines(runs) > before+3 }, syscall.SIGKILL, args...)
		if h.submitted() {
			args = []string{"resume", "-q", "last"}
		}
	}
	h.must(args...)
	h.read(func(c *api.Client) {
		checkResults(t, trials(t, c), 40, grid.Succeeded)
		for i := range int64(40) {
			attempts, err := c.Trials().Attempts(t.Context(), grid.TrialID{Sweep: api.Last, Index: i})
			if err != nil {
				t.Fatal(err)
			}
			results := 0
			for _, a := range attempts {
				if a.Outcome == "result" {
					results++
				}
			}
			if results != 1 {
				t.Errorf("trial %d: got %d results among %d attempts, want 1", i, results, len(attempts))
			}
		}
	})
}

// TestTrueState ends programs in every way there is and reads what mlfnode makes of it.
func TestTrueState(t *testing.T) {
	h := newHome(t)
	cases := []struct {
		how    string
		script string
		state  grid.State
		code   int
		reason string
	}{
		{"success", "exit 0", grid.Succeeded, 0, ""},
		{"exit code", "echo last words >&2; exit 3", grid.Failed, 3, "last words"},
		{"signal", "kill -SEGV $$", grid.Failed, 139, "SIGSEGV"},
		{"kill", "kill -KILL $$", grid.Failed, 137, "SIGKILL"},
	}
	for i, c := range cases {
		_ = h.command("sweep", "-q", "--", "sh", "-c", c.script).Run() // a failed trial gives exit code 1
		var all []api.Trial
		h.read(func(cl *api.Client) { all = trials(t, cl) })
		if len(all) != 1 {
			t.Fatalf("%s: got %d trials, want 1", c.how, len(all))
		}
		tr := all[0]
		if tr.State != c.state || tr.ExitCode == nil || *tr.ExitCode != c.code ||
			!strings.Contains(tr.Reason, c.reason) {
			t.Errorf("case %d, %s: got %s, code %v, reason %q; want %s, %d, …%s…", i, c.how, tr.State, tr.ExitCode,
				tr.Reason, c.state, c.code, c.reason)
		}
	}
}

// TestNoOrphan kills mlfnode under a trial whose processes try to get away; the next start of any
// command leaves none.
func TestNoOrphan(t *testing.T) {
	h := newHome(t)
	mark := newMark(t)
	script := fmt.Sprintf(
		`trap '' TERM; setsid sh -c 'trap "" TERM HUP; sleep 300; : %[1]s' & (setsid sleep 300 %[1]s &) ; sleep 300; : %[1]s`,
		mark)
	script = strings.ReplaceAll(script, "sleep 300 "+mark, "sh -c 'sleep 300; : "+mark+"'")
	h.interruptOnce(func() bool { return len(processes(t, mark)) >= 4 }, syscall.SIGKILL, "sweep", "-q", "--", "sh",
		"-c", script)
	h.must("sweeps")
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

// TestNoLostOutput has a trial print 20 MB, binary, without a newline at the end, right before it
// ends.
func TestNoLostOutput(t *testing.T) {
	h := newHome(t)
	h.must("sweep", "-q", "--", "sh", "-c",
		`head -c 20000000 /dev/zero | tr '\0' '\377'; printf 'é' ; printf 'tail' >&2`)
	var got map[string]string
	h.read(func(c *api.Client) { got = output(t, c, 0) })
	if n := len(got["stdout"]); n != 20000002 || !strings.HasSuffix(got["stdout"], "é") {
		t.Errorf("stdout: got %d bytes, want 20000002", n)
	}
	if got["stderr"] != "tail" {
		t.Errorf("stderr: got %q, want %q", got["stderr"], "tail")
	}
}

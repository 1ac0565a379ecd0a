package guarantees

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterruptLeavesNothing sends Ctrl-C at random moments, from before the project is packed to
// after the table is written. Each time mlfnode ends in good order, with nothing left in the folder
// for temporary files or beside the table.
func TestInterruptLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	h := newHome(t, "MLF_CPUS=2", "TMPDIR="+temp)
	project := filepath.Join(h.dir, "p")
	noise := make([]byte, 8<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	files := map[string][]byte{
		"project.yaml": []byte("tasks:\n  t:\n    command: [\"true\"]\n"), "noise": noise,
	}
	if err := os.Mkdir(project, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(project, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	table := filepath.Join(t.TempDir(), "table.csv")
	interrupted := 0
	for range 25 {
		after := rand.N(350 * time.Millisecond)
		cmd := h.command("sweep", "p", "-q", "--set", "i=0:50", "--csv", table)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitHandler(t, cmd.Process.Pid, syscall.SIGINT)
		sent := time.AfterFunc(after, func() { _ = cmd.Process.Signal(syscall.SIGINT) }) // it may have ended
		err := cmd.Wait()
		sent.Stop()
		switch code := cmd.ProcessState.ExitCode(); code {
		case 0:
		case 130:
			interrupted++
		default:
			t.Errorf("after %v: got exit code %d, %v; want 130", after, code, err)
		}
		if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
			t.Fatalf("after %v: temporary files are left: %v", after, left)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(table), ".*")); len(left) > 0 {
			t.Fatalf("after %v: left beside the table: %v", after, left)
		}
	}
	t.Logf("%d of 25 were interrupted", interrupted)
	if interrupted == 0 {
		t.Error("no sweep was interrupted")
	}
}

// TestNohup checks that a sweep outlives the terminal that it was told to outlive.
func TestNohup(t *testing.T) {
	h := newHome(t)
	began := filepath.Join(h.dir, "began")
	cmd := h.command()
	cmd.Path, cmd.Args = "/bin/sh",
		[]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, program, "sweep", "-q", "--", "sh", "-c",
			"touch " + began + "; sleep 1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, began)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after a hangup that is to be ignored: %v", err)
	}
	if all := h.must("sweeps", "--json"); !strings.Contains(all, `"succeeded":1`) {
		t.Errorf("got %s, want one trial that succeeded", all)
	}
}

// awaitHandler waits until a Go program has asked for a signal, before which it dies of it like any
// other. Its runtime then has a thread that blocks all signals but those that were asked for.
func awaitHandler(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	const other = syscall.SIGUSR1 // which nobody asks for
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); runtime.Gosched() {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread) // a thread may have ended
			_, blocked, _ := strings.Cut(string(text), "\nSigBlk:\t")
			blocked, _, _ = strings.Cut(blocked, "\n")
			mask, err := strconv.ParseUint(blocked, 16, 64)
			if err == nil && mask&(1<<(other-1)) != 0 && mask&(1<<(sig-1)) == 0 {
				return
			}
		}
	}
	t.Fatalf("process %d has not asked for signal %d after 20 s", pid, sig)
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s is not there after 20 s", path)
		}
	}
}

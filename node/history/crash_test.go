package history

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mlfnode/grid"
)

// folderEnv turns the test binary into a process that folds into the file named by the variable,
// until it is killed.
const folderEnv = "MLF_TEST_FOLDER"

// streamBatch returns the batch with a sequence in an endless stream: runs of trials around a
// moving index, some of them started, some failed and some in another sweep. It is the same in
// every process.
func streamBatch(seq uint64) Stored {
	r := rand.New(rand.NewPCG(seq, 1))
	b := &grid.Batch{Sweep: grid.SweepID("a-" + strconv.Itoa(1+r.IntN(2))),
		Node: grid.NodeID("n" + strconv.Itoa(r.IntN(4)))}
	for i := range 20 {
		e := finished(int64(seq)+r.Int64N(30), fmt.Sprintf(`{"loss": %d}`, r.IntN(100)))
		e.Run, e.Attempt, e.Time = fmt.Sprintf("%d-%d", seq, i), 1+r.IntN(3), int64(seq)*100+int64(i)
		switch r.IntN(4) {
		case 0:
			e.Kind, e.Result = grid.Started, nil
		case 1:
			e.Result.Class, e.Result.ExitCode, e.Result.Reason = grid.ClassExit, 1, "exit code 1"
		case 2:
			e = grid.Event{Kind: grid.Reopened, Index: e.Index, Time: e.Time}
			if r.IntN(2) == 0 {
				e.Kind, e.End = grid.ReopenedRange, e.Index+r.Int64N(30)
			}
		}
		b.Events = append(b.Events, e)
	}
	return Stored{Seq: seq, Batch: b}
}

// retryPolicy is a policy that knows every sweep and retries a failure once.
func retryPolicy(grid.SweepID) (Policy, bool) {
	return Policy{Retries: grid.Retries{grid.ClassExit: 1}, Metric: "loss"}, true
}

// foldTo continues the fold of the stream from where the history ends.
func foldTo(t tester, d *DB, last uint64) {
	t.Helper()
	var part []Stored
	for seq := d.Applied() + 1; seq <= last; seq++ {
		part = append(part, streamBatch(seq))
	}
	if _, err := d.Fold(t.Context(), part, retryPolicy); err != nil {
		t.Fatalf("fold up to %d: %v", last, err)
	}
}

// sameAs compares everything that two histories of the stream contain.
func sameAs(t tester, want, got *DB) {
	t.Helper()
	for _, id := range []grid.SweepID{"a-1", "a-2"} {
		if delta := diff(listSweep(t, want, id), listSweep(t, got, id)); delta != "" {
			t.Fatalf("%s at sequence %d (-want +got):\n%s", id, got.Applied(), delta)
		}
	}
}

// TestFolder is the process that TestKillWhileFolding kills.
func TestFolder(t *testing.T) {
	path := os.Getenv(folderEnv)
	if path == "" {
		t.Skip("runs as a child of TestKillWhileFolding")
	}
	d := openAt(t, path)
	for {
		foldTo(t, d, d.Applied()+1+rand.Uint64N(30))
		fmt.Printf("+%d\n", d.Applied())
	}
}

// TestKillWhileFolding kills a folding process again and again. The next one continues from the
// sequence in the file, and in the end nothing is missing and nothing was applied twice.
func TestKillWhileFolding(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	path := filepath.Join(t.TempDir(), "history.db")
	whole := open(t)
	for round := range rounds {
		told := killFolder(t, path)
		d := openAt(t, path)
		if d.Applied() < told {
			t.Errorf("round %d: sequence %d was folded, and %d is in the file", round, told, d.Applied())
		}
		if round == rounds-1 {
			foldTo(t, whole, d.Applied())
			sameAs(t, whole, d)
			t.Logf("killed %d times within %d batches", rounds, d.Applied())
		}
		mustClose(t, d)
	}
	if _, err := os.Lstat(path + asideSuffix); err == nil {
		t.Error("a kill made the history look damaged")
	}
}

// killFolder lets a process fold for a while, kills it, and returns the last sequence that it
// reported.
func killFolder(t *testing.T, path string) (told uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFolder$")
	cmd.Env = append(os.Environ(), folderEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	left := 1 + rand.IntN(8)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		seq, found := strings.CutPrefix(lines.Text(), "+")
		if !found {
			t.Errorf("the folding process says: %s", lines.Text())
			continue
		}
		if told, err = strconv.ParseUint(seq, 10, 64); err != nil {
			t.Errorf("the folding process says: %s", lines.Text())
		}
		if left--; left == 0 { // the kill interrupts whatever it is folding by then
			_ = cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the folding process ended by itself: %v", err)
	}
	return told
}

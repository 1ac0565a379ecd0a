package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
)

// TestTornFolderNeverCostsTheSnapshot kills an attempt while it writes, and fails the next one, on
// the same node, because of what is left: only the folder is not used again.
func TestTornFolderNeverCostsTheSnapshot(t *testing.T) {
	v := newCheckpointHarness(t, "torn-1", nil)
	id := grid.TrialID{Sweep: v.sweep.ID}
	v.attempt(1, func(_ context.Context, dir, _ string) executor.Outcome {
		incrementStep(t, dir)
		return ended(grid.ClassExit, 85)
	})
	v.attempt(2, func(_ context.Context, dir, _ string) executor.Outcome {
		write(t, filepath.Join(dir, "step"), "torn")
		return ended(grid.ClassLost, -1)
	})
	r := v.attempt(3, func(_ context.Context, dir, _ string) executor.Outcome {
		if b, _ := os.ReadFile(filepath.Join(dir, "step")); string(b) != "torn" {
			t.Errorf("got %q in the folder", b)
		}
		return ended(grid.ClassCheckpoint, 1)
	})
	if r.Resumed != 0 || !strings.Contains(r.Reason, "what its node had of its state is not used again") {
		t.Errorf("got resumed from %d: %s", r.Resumed, r.Reason)
	}
	if err := v.store.Reject(id, 3, r.Resumed); err != nil {
		t.Fatal(err)
	}
	r = v.attempt(4, func(_ context.Context, dir, _ string) executor.Outcome {
		if n := incrementStep(t, dir); n != 2 {
			t.Errorf("got step %d, want 2: from the snapshot", n)
		}
		return ended(grid.ClassExit, 85)
	})
	if r.Resumed != 1 || r.Snapshot != 2 {
		t.Errorf("got snapshot %d of one resumed from %d, want 2, 1", r.Snapshot, r.Resumed)
	}
}

// TestEndsThatLeaveTheFolderClean checks after which outcomes the content of the folder counts as
// consistent.
func TestEndsThatLeaveTheFolderClean(t *testing.T) {
	later := ended(grid.ClassSignal, 137)
	later.Usage.Wall = time.Hour.Microseconds() // it wrote only at its beginning
	v := newCheckpointHarness(t, "clean-1", func(c *grid.Checkpoint) { c.OnTimeout = grid.TimeoutResumes })
	for i, c := range []struct {
		end  executor.Outcome
		want bool
	}{
		{ended(grid.ClassExit, 85), true}, {ended(grid.ClassExit, 1), false}, {ended(grid.ClassSignal, 137), false},
		{later, true},
		{ended(grid.ClassHalt, 0), true}, {ended(grid.ClassHalt, 3), true}, {ended(grid.ClassHalt, 137), false},
		{ended(grid.ClassTimeout, 137), false},
		{ended(grid.ClassTimeout, 0), true}, // it had a notice
	} {
		r := v.attempt(i+1, func(_ context.Context, dir, _ string) executor.Outcome {
			incrementStep(t, dir)
			return c.end
		})
		s, err := v.store.Load(t.Context(), grid.TrialID{Sweep: "clean-1"}, r.Snapshot)
		if err != nil || s.Clean != c.want {
			t.Errorf("after %q with %d: got %+v, %v; want clean %t", c.end.Class, c.end.ExitCode, s, err, c.want)
		}
	}
}

// TestFetchThatFails checks who is to blame when a trial's saved state can't be fetched.
func TestFetchThatFails(t *testing.T) {
	a := &attempt{attemptSpec: attemptSpec{resumePoint: resumePoint{snapshot: 4}}}
	for _, c := range []struct {
		err  error
		want grid.Class
	}{
		{&url.Error{Op: "Get", URL: "https://master", Err: syscall.ECONNREFUSED}, grid.ClassStorage},
		{context.DeadlineExceeded, grid.ClassStorage}, {checkpoint.ErrNotHeld, grid.ClassStorage},
		{errors.New("HTTP 500"), grid.ClassStorage},
		{
			fmt.Errorf(
				"the node does not answer: %w",
				&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
			),
			grid.ClassStorage,
		},
		{fmt.Errorf("fetch a: %w", checkpoint.ErrCorrupted), grid.ClassNode},
		{os.NewSyscallError("syncfs", syscall.EIO), grid.ClassNode},
		{fmt.Errorf("fetch a: %w", checkpoint.ErrDamaged), grid.ClassCheckpoint},
		{fmt.Errorf("%w: %w", checkpoint.ErrDamaged, fs.ErrNotExist), grid.ClassCheckpoint},
		{&fs.PathError{Op: "write", Path: "live.new/a", Err: syscall.ENOSPC}, grid.ClassNode},
		{&os.LinkError{Op: "rename", Err: syscall.EIO}, grid.ClassNode},
	} {
		if r := a.prepareFailure(&fetchError{c.err}); r.Class != c.want || r.Resumed != 4 {
			t.Errorf("%v: got %q of one resumed from %d, want %q, 4", c.err, r.Class, r.Resumed, c.want)
		}
	}
}

// corrupting is a node whose memory or disk changes what it receives.
type corrupting struct{ checkpoint.Remote }

func (c corrupting) Open(ctx context.Context, id grid.TrialID, hash string) (io.ReadCloser, error) {
	f, err := c.Remote.Open(ctx, id, hash)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	b[0]++
	return io.NopCloser(bytes.NewReader(b)), err
}

// TestNodeThatCorruptsWhatItFetches damages an intact snapshot each time that one node fetches it:
// the node is to blame, which its result says, and another node continues from the snapshot.
func TestNodeThatCorruptsWhatItFetches(t *testing.T) {
	v, bad, other := newCheckpointHarness(t, "corrupt-1", nil), newCheckpointHarness(t, "corrupt-1", nil),
		newCheckpointHarness(t, "corrupt-1", nil)
	bad.store, bad.cfg.Snapshots.Remote = v.store, corrupting{v.store}
	other.store, other.cfg.Snapshots.Remote = v.store, v.store
	v.attempt(1, func(_ context.Context, dir, _ string) executor.Outcome {
		incrementStep(t, dir)
		return ended(grid.ClassExit, 85)
	})
	for number := 2; number < 5; number++ {
		r := bad.attempt(number, func(context.Context, string, string) executor.Outcome {
			t.Error("the program ran on what is not what it saved")
			return ended(grid.ClassNone, 0)
		})
		if r.Class != grid.ClassNode || r.Snapshot != 0 ||
			!strings.Contains(r.Reason, "what arrived on this node is not what is stored") {
			t.Errorf("got %q: %s", r.Class, r.Reason)
		}
		if bad.trials.backoff.unavailableReason() == "" {
			t.Error("the node does not tell that it can't run trials")
		}
	}
	r := other.attempt(5, func(_ context.Context, dir, _ string) executor.Outcome {
		if n := incrementStep(t, dir); n != 2 {
			t.Errorf("got step %d, want 2: the snapshot is good", n)
		}
		return ended(grid.ClassNone, 0)
	})
	if r.Class != grid.ClassNone || r.Resumed != 1 {
		t.Errorf("got %q of one resumed from %d: %s", r.Class, r.Resumed, r.Reason)
	}
}

// TestDamagedSnapshotFallsBack damages the newest snapshot in the store. An attempt that is to
// fetch it reports that, and the next ones continue from the previous snapshot, or from the
// beginning if that is damaged as well.
func TestDamagedSnapshotFallsBack(t *testing.T) {
	v, other := newCheckpointHarness(t, "falls-1", nil), newCheckpointHarness(t, "falls-1", nil)
	dir := t.TempDir()
	store, err := checkpoint.OpenStore(dir, 1<<30, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*checkpointHarness{v, other} {
		n.cfg.Snapshots.Remote, n.store = store, store
	}
	for i := range 2 {
		v.attempt(i+1, func(_ context.Context, dir, _ string) executor.Outcome {
			incrementStep(t, dir)
			return ended(grid.ClassExit, 85)
		})
	}
	id := grid.TrialID{Sweep: "falls-1"}
	for i, number := range []int{2, 1} {
		s, err := store.Load(t.Context(), id, number)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "falls-1", "0", "files", s.Files[0].Hash), []byte("?"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := other.attempt(i+3, func(context.Context, string, string) executor.Outcome {
			t.Error("the program ran without what the trial had saved")
			return ended(grid.ClassNone, 0)
		})
		if !r.Unreadable() || r.Resumed != number ||
			!strings.Contains(r.Reason, fmt.Sprintf("snapshot %d is not used again", number)) {
			t.Errorf("got %q of one resumed from %d: %s", r.Class, r.Resumed, r.Reason)
		}
	}
	other.attempt(5, func(_ context.Context, dir, resume string) executor.Outcome {
		if resume != "" || incrementStep(t, dir) != 1 {
			t.Errorf("got MLF_RESUME %q, want a beginning", resume)
		}
		return ended(grid.ClassNone, 0)
	})
}

// TestEachAttemptHasItsOwnTimeToStore stops a node whose program takes longer to save than its
// snapshot may take to store.
func TestEachAttemptHasItsOwnTimeToStore(t *testing.T) {
	v := newCheckpointHarness(t, "parts-1", nil)
	v.trials.attempts.programs.snapshots.shutdownTimeout = 3 * time.Second
	began := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-began
		v.stop()
	}()
	r := v.attempt(1, func(ctx context.Context, dir, _ string) executor.Outcome {
		close(began)
		<-ctx.Done()
		<-time.After(
			v.trials.attempts.programs.snapshots.shutdownTimeout +
				v.trials.attempts.programs.snapshots.shutdownTimeout/10,
		)
		incrementStep(t, dir)
		return ended(grid.ClassHalt, 0)
	})
	<-stopped
	if r.Class != grid.ClassHalt || r.Snapshot != 1 {
		t.Errorf("got %q with snapshot %d: %s", r.Class, r.Snapshot, r.Reason)
	}
}

// unreachable is a store that does not answer.
type unreachable struct {
	checkpoint.Remote
	began chan<- struct{} // receives each request for a snapshot
}

func (u unreachable) Load(ctx context.Context, _ grid.TrialID, _ int) (*checkpoint.Snapshot, error) {
	u.began <- struct{}{}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (unreachable) Offer(
	ctx context.Context, _ grid.TrialID, _ *checkpoint.Snapshot,
) (int, []checkpoint.Missing, error) {
	<-ctx.Done()
	return 0, nil, context.Cause(ctx)
}

// TestSnapshotsShareTheTimeOfAStop stops a node with more trials than there may be concurrent
// uploads of snapshots, and a master that answers nothing: they do not wait one after another.
func TestSnapshotsShareTheTimeOfAStop(t *testing.T) {
	v := newCheckpointHarness(t, "share-1", nil)
	v.cfg.Snapshots.Remote, v.trials.attempts.programs.snapshots.shutdownTimeout = unreachable{}, 3*time.Second
	const trials = 4 * maxTransfers
	v.cfg.Machine.CPUs = trials
	v.Devices.Resize(v.cfg.Machine)
	var began sync.WaitGroup
	began.Add(trials)
	v.script = func(ctx context.Context, dir, _ string) executor.Outcome {
		incrementStep(t, dir)
		began.Done()
		<-ctx.Done()
		return ended(grid.ClassHalt, 0)
	}
	for i := range int64(trials) {
		v.lease(v.sweep, i, i+1)
	}
	began.Wait()
	if !v.Busy() {
		t.Error("a worker whose programs run concludes nothing")
	}
	at := time.Now()
	v.stop()
	if took, most := time.Since(at), 3*v.trials.attempts.programs.snapshots.shutdownTimeout; took > most {
		t.Errorf(
			"the stop took %v, want less than %v: %v for each snapshot, all at one time", took, most,
			v.trials.attempts.programs.snapshots.shutdownTimeout,
		)
	}
	for _, e := range v.finished(v.sweep.ID, trials) {
		if !strings.Contains(e.Result.Reason, "on this node only") ||
			!strings.Contains(e.Result.Reason, errTransferTimeout.Error()) {
			t.Errorf("got the reason %q", e.Result.Reason)
		}
	}
}

// fullStore is a store in the same process that reports a full disk a few times.
type fullStore struct {
	checkpoint.Remote
	refusals atomic.Int32
}

func (c *fullStore) Put(ctx context.Context, id grid.TrialID, m checkpoint.Missing, r io.Reader) error {
	if c.refusals.Add(-1) >= 0 {
		return &fs.PathError{Op: "write", Path: "files", Err: syscall.ENOSPC}
	}
	return c.Remote.Put(ctx, id, m, r)
}

// TestFullMasterIsWaitedFor stores the checkpoint of a trial on the master's own machine once there
// is room again.
func TestFullMasterIsWaitedFor(t *testing.T) {
	v := newCheckpointHarness(t, "crammed-1", nil)
	full := &fullStore{Remote: v.store}
	full.refusals.Store(2)
	v.cfg.Snapshots.Remote = full
	r := v.attempt(1, func(_ context.Context, dir, _ string) executor.Outcome {
		incrementStep(t, dir)
		return ended(grid.ClassExit, 85)
	})
	if r.Snapshot != 1 {
		t.Errorf("got snapshot %d: %s", r.Snapshot, r.Reason)
	}
}

// TestProgramThatNeverRests runs a program that writes its state all the time: the state is stored
// all the same, marked as possibly torn, and the result says so.
func TestProgramThatNeverRests(t *testing.T) {
	v := newCheckpointHarness(
		t, "restless-1", func(c *grid.Checkpoint) { c.Every, c.Quiet = time.Millisecond, 20*time.Millisecond },
	)
	id := grid.TrialID{Sweep: "restless-1"}
	r := v.attempt(1, func(ctx context.Context, dir, _ string) executor.Outcome {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for writeUntil(stop) {
				incrementStep(t, dir)
			}
		}()
		defer func() {
			close(stop)
			<-stopped
		}()
		eventually(t, "a snapshot of the running program", func() bool {
			n, _ := v.store.Newest(id)
			s, err := v.store.Load(ctx, id, n)
			return err == nil && !s.Clean && has(s, "step")
		})
		return ended(grid.ClassExit, 1)
	})
	if r.Snapshot == 0 || !strings.Contains(r.Reason, "without a pause of 20ms") {
		t.Errorf("got snapshot %d: %s", r.Snapshot, r.Reason)
	}
	if _, err := os.Stat(
		filepath.Join(v.trials.attempts.checkpoints.folder(id), "copy"),
	); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of the folder is left: %v", err)
	}
}

// TestSlowRead stores the state of a program whose pauses are long, but shorter than the time that
// reading its state takes.
func TestSlowRead(t *testing.T) {
	v := newCheckpointHarness(
		t, "slow-1", func(c *grid.Checkpoint) { c.Every, c.Quiet = time.Millisecond, time.Millisecond },
	)
	id := grid.TrialID{Sweep: "slow-1"}
	v.attempt(1, func(ctx context.Context, dir, _ string) executor.Outcome {
		write(t, filepath.Join(dir, "weights"), strings.Repeat("w", 64<<20))
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		eventually(t, "a snapshot of the running program", func() bool {
			<-tick.C
			incrementStep(t, dir)
			n, _ := v.store.Newest(id)
			s, err := v.store.Load(ctx, id, n)
			return err == nil && has(s, "step") && has(s, "weights")
		})
		return ended(grid.ClassExit, 1)
	})
}

func writeUntil(stop chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}

func has(s *checkpoint.Snapshot, path string) bool {
	return slices.ContainsFunc(s.Files, func(f checkpoint.File) bool { return f.Path == path })
}

// TestNoRoomToCopy checks that a checkpoint is not copied if that would fill the disk.
func TestNoRoomToCopy(t *testing.T) {
	dir := t.TempDir()
	d, err := readDiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkCopyRoom(dir, 0); d.free > 2*minFreeDisk && err != nil {
		t.Errorf("nothing to copy: %v", err)
	}
	if err := checkCopyRoom(dir, d.size); !errors.Is(err, syscall.ENOSPC) || !isPermanent(err) {
		t.Errorf("got %v, want that it is not tried", err)
	}
}

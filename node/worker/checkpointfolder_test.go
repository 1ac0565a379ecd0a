package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
)

// checkpointHarness is a harness whose programs run a script with their checkpoint folder, one per
// attempt.
type checkpointHarness struct {
	*harness
	sweep *grid.Sweep
	store *checkpoint.Store

	mu     sync.Mutex
	script func(ctx context.Context, dir, resume string) executor.Outcome
	seen   *executor.Attempt
}

func newCheckpointHarness(t *testing.T, id grid.SweepID, edit func(*grid.Checkpoint)) *checkpointHarness {
	t.Helper()
	store, err := checkpoint.OpenStore(t.TempDir(), 1<<30, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	v := &checkpointHarness{store: store}
	v.harness = newHarness(t, v.runScript)
	v.cfg.Snapshots.Remote = store
	v.sweep = v.harness.sweep(id, 9, 1, func(s *grid.Sweep) {
		c := grid.DefaultCheckpoint()
		c.Grace = time.Minute
		if edit != nil {
			edit(&c)
		}
		s.Task.Checkpoint = &c
	})
	v.run()
	return v
}

func (v *checkpointHarness) runScript(ctx context.Context, a *executor.Attempt) executor.Outcome {
	v.mu.Lock()
	script := v.script
	v.seen = a
	v.mu.Unlock()
	return script(ctx, valueOf(a.Env, "MLF_CHECKPOINT"), valueOf(a.Env, "MLF_RESUME"))
}

func valueOf(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// attempt leases trial 0 as the master would, and returns the result of the attempt.
func (v *checkpointHarness) attempt(
	number int, script func(ctx context.Context, dir, resume string) executor.Outcome,
) grid.Result {
	v.t.Helper()
	v.mu.Lock()
	v.script = script
	v.mu.Unlock()
	n, bad := v.store.Newest(grid.TrialID{Sweep: v.sweep.ID})
	_, err := v.harness.store.Queue.Publish(v.t.Context(), jetstream.Lease{
		Sweep: v.sweep.ID, Lo: 0, Hi: 1, Attempt: number, Shape: string(v.sweep.Lane()), Snapshot: n, Bad: bad,
	})
	if err != nil {
		v.t.Fatal(err)
	}
	var result grid.Result
	v.events(v.sweep.ID, func(all []grid.Event) bool {
		for _, e := range only(all, grid.Finished) {
			if e.Attempt == number {
				result = *e.Result
				return true
			}
		}
		return false
	})
	return result
}

// ended returns the outcome of a program that ran for a while.
func ended(class grid.Class, code int) executor.Outcome {
	now := time.Now()
	return executor.Outcome{
		Class: class, ExitCode: code, Start: now.Add(-time.Second), End: now, Usage: grid.Usage{Wall: 1e6},
	}
}

// incrementStep reads a counter from the folder, adds one and writes it back, as a program does.
func incrementStep(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "step"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	n, _ := strconv.Atoi(string(b))
	n++
	if err := os.WriteFile(filepath.Join(dir, "step.tmp"), []byte(strconv.Itoa(n)), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(filepath.Join(dir, "step.tmp"), filepath.Join(dir, "step")); err != nil {
		t.Error(err)
	}
	return n
}

// TestCheckpointFolderOutlivesAttempts resumes a trial again and again: the folder is the same,
// MLF_RESUME is set once the folder has content, each end except success stores a snapshot, and
// nothing is left after success.
func TestCheckpointFolderOutlivesAttempts(t *testing.T) {
	v := newCheckpointHarness(t, "saves-1", nil)
	where := ""
	ends := []executor.Outcome{
		ended(grid.ClassExit, 85), ended(grid.ClassExit, 1), ended(grid.ClassSignal, 139), ended(grid.ClassMemory, 137),
		ended(grid.ClassTimeout, 143),
	}
	want := []grid.Class{grid.ClassPreempt, grid.ClassExit, grid.ClassSignal, grid.ClassMemory, grid.ClassTimeout}
	for i, end := range ends {
		r := v.attempt(i+1, func(_ context.Context, dir, resume string) executor.Outcome {
			if where == "" {
				where = dir
			}
			if dir == "" || dir != where || strings.Contains(dir, "spool") {
				t.Errorf("attempt %d: got the folder %q, want %q", i+1, dir, where)
			}
			if (resume != "") != (i > 0) || resume != "" && resume != dir {
				t.Errorf("attempt %d: got MLF_RESUME %q", i+1, resume)
			}
			if n := incrementStep(t, dir); n != i+1 {
				t.Errorf("attempt %d: got step %d", i+1, n)
			}
			return end
		})
		if r.Class != want[i] || r.Snapshot != i+1 || r.Resumed != i {
			t.Errorf(
				"attempt %d: got %q, snapshot %d of one resumed from %d (%s); want %q, %d, %d", i+1, r.Class,
				r.Snapshot, r.Resumed, r.Reason, want[i], i+1, i,
			)
		}
	}
	v.attempt(9, func(context.Context, string, string) executor.Outcome { return ended(grid.ClassNone, 0) })
	eventually(
		t, "the folder goes after success",
		func() bool { _, err := os.Stat(filepath.Dir(filepath.Dir(where))); return err != nil },
	)
}

// TestExitCode85 checks that exit code 85 has no effect if nothing was saved, or if the task
// declares no checkpoint.
func TestExitCode85(t *testing.T) {
	v := newCheckpointHarness(t, "empty-1", nil)
	r := v.attempt(1, func(context.Context, string, string) executor.Outcome { return ended(grid.ClassExit, 85) })
	if r.Class != grid.ClassExit || !strings.Contains(r.Reason, "nothing is in $MLF_CHECKPOINT") || r.Snapshot != 0 {
		t.Errorf("with nothing saved: got %q, %q", r.Class, r.Reason)
	}
	plain := v.harness.sweep("plain-1", 1, 1, nil)
	v.mu.Lock()
	v.script = func(_ context.Context, dir, resume string) executor.Outcome {
		if dir != "" || resume != "" {
			t.Errorf("a task without a checkpoint got %q, %q", dir, resume)
		}
		return ended(grid.ClassExit, 85)
	}
	v.mu.Unlock()
	eventually(t, "the worker knows the sweep", func() bool { _, ok := v.sweeps.active(plain.ID); return ok })
	v.lease(plain, 0, 1)
	if r := v.finished("plain-1", 1)[0].Result; r.Class != grid.ClassExit {
		t.Errorf("without a checkpoint: got %q", r.Class)
	}
}

// TestEndsAfterANotice checks what an exit code means after a stop, and that a trial can resume
// after a timeout.
func TestEndsAfterANotice(t *testing.T) {
	for _, c := range []struct {
		timeout string
		end     executor.Outcome
		want    grid.Class
	}{
		{grid.TimeoutFails, ended(grid.ClassHalt, 0), grid.ClassHalt},
		{grid.TimeoutFails, ended(grid.ClassHalt, 143), grid.ClassHalt},
		{grid.TimeoutFails, ended(grid.ClassHalt, 85), grid.ClassHalt},
		{grid.TimeoutFails, ended(grid.ClassTimeout, 0), grid.ClassTimeout},
		{grid.TimeoutResumes, ended(grid.ClassTimeout, 0), grid.ClassPreempt},
		{grid.TimeoutResumes, ended(grid.ClassTimeout, 137), grid.ClassPreempt},
		{grid.TimeoutResumes, ended(grid.ClassCancel, 0), grid.ClassCancel},
	} {
		a := &attempt{attemptSpec: attemptSpec{task: &grid.Task{Checkpoint: &grid.Checkpoint{OnTimeout: c.timeout}}}}
		r := a.resultOf(c.end)
		if r.Class != c.want {
			t.Errorf(
				"on_timeout: %s, %q with %d: got %q, want %q", c.timeout, c.end.Class, c.end.ExitCode, r.Class, c.want,
			)
		}
	}
}

// TestDrainMovesCheckpointedTrials drains the node: trials that can continue elsewhere get their
// notice, and others run to their end.
func TestDrainMovesCheckpointedTrials(t *testing.T) {
	v := newCheckpointHarness(t, "moves-1", func(c *grid.Checkpoint) { c.Signal = "USR1" })
	began := make(chan struct{})
	go func() {
		<-began
		v.heartbeats.apply(&jetstream.Directives{Drain: true})
	}()
	r := v.attempt(1, func(ctx context.Context, dir, _ string) executor.Outcome {
		close(began)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), executor.ErrHalted) || errors.Is(context.Cause(ctx), executor.ErrKill) {
			t.Errorf("got the cause %v", context.Cause(ctx))
		}
		incrementStep(t, dir)
		return ended(grid.ClassHalt, 0)
	})
	if r.Class != grid.ClassHalt || r.Snapshot != 1 {
		t.Errorf("got %q with snapshot %d (%s)", r.Class, r.Snapshot, r.Reason)
	}
	if v.seen.Notice.String() != "user defined signal 1" || v.seen.NoticeGrace != time.Minute || v.seen.NoticeTimeout {
		t.Errorf("got the notice %v, %v, %v", v.seen.Notice, v.seen.NoticeGrace, v.seen.NoticeTimeout)
	}
	v.released("moves-1", 1)
	v.heartbeats.apply(&jetstream.Directives{})
	v.mu.Lock()
	v.script = func(ctx context.Context, _, _ string) executor.Outcome {
		v.heartbeats.apply(&jetstream.Directives{Drain: true})
		if ctx.Err() != nil {
			t.Error("a trial that can't save its state was stopped by a drain")
		}
		return ended(grid.ClassNone, 0)
	}
	v.mu.Unlock()
	plain := v.harness.sweep("stays-1", 1, 1, nil)
	eventually(t, "the worker knows the sweep", func() bool { _, ok := v.sweeps.active(plain.ID); return ok })
	v.lease(plain, 0, 1)
	v.finished("stays-1", 1)
}

// TestTrialMovesToAnotherNode runs a trial on three nodes that share a store of snapshots: each
// continues from what the last one saved, and a node whose own folder is older fetches the
// snapshot.
func TestTrialMovesToAnotherNode(t *testing.T) {
	a := newCheckpointHarness(t, "travels-1", nil)
	next := 0
	run := func(v *checkpointHarness, number int) grid.Result {
		t.Helper()
		return v.attempt(number, func(_ context.Context, dir, _ string) executor.Outcome {
			if next++; incrementStep(t, dir) != next {
				t.Errorf("attempt %d: the step is not %d", number, next)
			}
			return ended(grid.ClassExit, 1)
		})
	}
	b := newCheckpointHarness(t, "travels-1", nil)
	b.cfg.Snapshots.Remote, b.store = a.store, a.store
	for i, v := range []*checkpointHarness{a, b, b, a, b, a} {
		if r := run(v, i+1); r.Snapshot != i+1 || r.Resumed != i {
			t.Errorf("attempt %d: got snapshot %d of one resumed from %d (%s)", i+1, r.Snapshot, r.Resumed, r.Reason)
		}
	}
	// Attempt 6 left something that attempt 7, on the same node, can't read: 8 continues from the
	// previous snapshot.
	r := a.attempt(7, func(context.Context, string, string) executor.Outcome { return ended(grid.ClassCheckpoint, 1) })
	if r.Snapshot != 0 || r.Resumed != 6 {
		t.Errorf("got snapshot %d of a state that can't be read, resumed from %d", r.Snapshot, r.Resumed)
	}
	if err := a.store.Reject(grid.TrialID{Sweep: "travels-1"}, 7, r.Resumed); err != nil {
		t.Fatal(err)
	}
	next = 5
	if r := run(a, 8); r.Resumed != 5 {
		t.Errorf("got resumed from %d, want 5", r.Resumed)
	}
	// Attempt 8 could apparently read 5, but not what it made from it; and 5 is then damaged.
	for i, resumed := range []int{7, 5} {
		if err := a.store.Reject(grid.TrialID{Sweep: "travels-1"}, 9+i, resumed); err != nil {
			t.Fatal(err)
		}
	}
	a.attempt(11, func(_ context.Context, dir, resume string) executor.Outcome {
		if resume != "" || !isEmpty(dir) {
			t.Errorf("got MLF_RESUME %q, want an empty folder when no snapshot can be read", resume)
		}
		return ended(grid.ClassNone, 0)
	})
}

// TestCheckpointOverItsLimit checks that the checkpoint is not stored, which the result reports;
// the trial continues from it only on its own node.
func TestCheckpointOverItsLimit(t *testing.T) {
	v := newCheckpointHarness(t, "large-1", func(c *grid.Checkpoint) { c.MaxSize = 100 })
	write := func(size int) func(context.Context, string, string) executor.Outcome {
		return func(_ context.Context, dir, _ string) executor.Outcome {
			if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, size), 0o600); err != nil {
				t.Error(err)
			}
			return ended(grid.ClassExit, 85)
		}
	}
	if r := v.attempt(1, write(100)); r.Snapshot != 1 {
		t.Errorf("got %q", r.Reason)
	}
	r := v.attempt(2, write(101))
	if r.Class != grid.ClassPreempt || r.Snapshot != 0 || !strings.Contains(r.Reason, "checkpoint.max_size is 100 B") ||
		!strings.Contains(r.Reason, "elsewhere it continues from snapshot 1") {
		t.Errorf("got %q, snapshot %d, %q", r.Class, r.Snapshot, r.Reason)
	}
	v.attempt(3, func(_ context.Context, dir, _ string) executor.Outcome {
		if info, err := os.Stat(filepath.Join(dir, "f")); err != nil || info.Size() != 101 {
			t.Errorf("got %v, %v; want what attempt 2 left", info, err)
		}
		return ended(grid.ClassNone, 0)
	})
}

// TestRunningTrialIsStored takes snapshots of a running program; each contains one consistent
// state, although the program never stops writing for long.
func TestRunningTrialIsStored(t *testing.T) {
	v := newCheckpointHarness(
		t, "often-1", func(c *grid.Checkpoint) { c.Every, c.Quiet = time.Millisecond, 5*time.Millisecond },
	)
	id := grid.TrialID{Sweep: "often-1"}
	v.attempt(1, func(ctx context.Context, dir, _ string) executor.Outcome {
		for i := range 3 {
			for _, name := range []string{"a", "b"} {
				if err := os.WriteFile(filepath.Join(dir, name), fmt.Append(nil, i), 0o600); err != nil {
					t.Error(err)
				}
			}
			eventually(t, "a snapshot of the running program", func() bool {
				n, _ := v.store.Newest(id)
				s, err := v.store.Load(ctx, id, n)
				if err != nil || len(s.Files) != 2 || s.Files[0].Hash != s.Files[1].Hash {
					return false
				}
				f, err := v.store.Open(ctx, id, s.Files[0].Hash)
				if err != nil {
					return false
				}
				defer f.Close()
				var b [1]byte
				_, _ = f.Read(b[:])
				return string(b[:]) == strconv.Itoa(i)
			})
		}
		return ended(grid.ClassNone, 0)
	})
}

// TestTwoAttemptsNeverShareAFolder checks that a second attempt of a trial waits for the end of the
// first one.
func TestTwoAttemptsNeverShareAFolder(t *testing.T) {
	c := newCheckpoints(&Config{Dir: t.TempDir(), Logger: logger(t)}, newSweepSet(), nil)
	id := grid.TrialID{Sweep: "s-1", Index: 1}
	first, err := c.acquire(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := c.acquire(gone, id); err == nil {
		t.Error("got the folder that another attempt has")
	}
	second := make(chan *checkpointFolder)
	go func() {
		s, _ := c.acquire(context.Background(), id)
		second <- s
	}()
	if err := c.remove(id); err != nil {
		t.Error(err)
	}
	first.release()
	first.release() // a second call changes nothing
	receive(t, "the folder", second).release()
}

// TestFoldersGo checks which folders stay on a node: none of a removed sweep; for other sweeps,
// those with content that is stored nowhere else until a day after the sweep's end, and stored ones
// for an hour after their last attempt here.
func TestFoldersGo(t *testing.T) {
	c := newCheckpoints(&Config{Dir: t.TempDir(), Logger: logger(t)}, newSweepSet(), nil)
	now := time.Now()
	running := &grid.Sweep{State: grid.SweepRunning}
	var want, got []int
	var records []*grid.Sweep
	for i, f := range []struct {
		record      *grid.Sweep
		stored, old bool
		stays       bool
	}{
		{nil, true, false, false}, {nil, false, false, false},
		{running, true, false, true}, {running, true, true, false}, {running, false, true, true},
		{&grid.Sweep{State: grid.SweepPaused}, false, true, true},
		{&grid.Sweep{State: grid.SweepFinished, Ended: now}, true, false, false},
		{&grid.Sweep{State: grid.SweepFinished, Ended: now}, false, true, true},
		{&grid.Sweep{State: grid.SweepFinished, Ended: now.Add(-25 * time.Hour)}, false, false, false},
		{&grid.Sweep{State: grid.SweepCancelled, Ended: now}, false, true, true},
		{&grid.Sweep{State: grid.SweepCancelled, Ended: now.Add(-25 * time.Hour)}, false, true, false},
		{&grid.Sweep{State: grid.SweepCancelled, Ended: now.Add(-25 * time.Hour), Save: true}, false, true, true},
	} {
		s, err := c.acquire(t.Context(), grid.TrialID{Sweep: grid.SweepID(fmt.Sprintf("s-%d", i))})
		if err == nil {
			err = s.prepare(1, resumePoint{}, nil)
		}
		if err == nil {
			err = s.writeState(folderState{Attempt: 1, Base: 1, Stored: f.stored})
		}
		if err == nil && f.old {
			err = os.Chtimes(filepath.Join(s.dir, "state"), now, now.Add(-2*time.Hour))
		}
		if err != nil {
			t.Fatal(err)
		}
		s.release()
		if records = append(records, f.record); f.stays {
			want = append(want, i)
		}
	}
	err := c.removeUnneeded(now, func(id grid.SweepID) *grid.Sweep {
		i, _ := strconv.Atoi(strings.TrimPrefix(string(id), "s-"))
		return records[i]
	})
	for i := range records {
		if _, err := os.Stat(filepath.Join(c.dir, fmt.Sprintf("s-%d", i))); err == nil {
			got = append(got, i)
		}
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v left, %v; want %v", got, err, want)
	}
}

// TestFolderGoesWithItsRunningAttempt removes a sweep while an attempt uses its folder, which is
// removed when the attempt ends.
func TestFolderGoesWithItsRunningAttempt(t *testing.T) {
	v := newCheckpointHarness(t, "removed-1", nil)
	ended := make(chan string, 1)
	v.mu.Lock()
	v.script = func(ctx context.Context, dir, _ string) executor.Outcome {
		incrementStep(t, dir)
		if err := v.harness.store.Records.Delete(context.Background(), "removed-1"); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		eventually(t, "the record is gone", func() bool {
			return v.sweeps.recordOf("removed-1") == nil && len(v.trials.attempts.checkpoints.cleanupSoon) == 0
		})
		ended <- dir
		return executor.Outcome{Class: grid.ClassCancel}
	}
	v.mu.Unlock()
	v.lease(v.sweep, 0, 1)
	dir := receive(t, "the end", ended)
	eventually(t, "the folder goes", func() bool { _, err := os.Stat(dir); return errors.Is(err, fs.ErrNotExist) })
}

// TestSecondStopEndsTheSaving pauses a sweep, which gives its trial time to save its state, and
// then kills it: the time is over.
func TestSecondStopEndsTheSaving(t *testing.T) {
	v := newCheckpointHarness(t, "twice-1", nil)
	began := make(chan struct{})
	pause := func(halt bool) {
		r, err := v.harness.store.Records.Load(context.Background(), "twice-1")
		if err == nil {
			r.Sweep.State, r.Sweep.Halt = grid.SweepPaused, halt
			_, err = v.harness.store.Records.Update(context.Background(), &r)
		}
		if err != nil {
			t.Error(err)
		}
	}
	go func() {
		<-began
		pause(false)
	}()
	r := v.attempt(1, func(ctx context.Context, _, _ string) executor.Outcome {
		close(began)
		<-ctx.Done()
		select {
		case <-v.seen.Kill:
			t.Error("the trial has no time to save its state")
		default:
		}
		if errors.Is(context.Cause(ctx), executor.ErrKill) {
			t.Errorf("got %v", context.Cause(ctx))
		}
		pause(true)
		receive(t, "the end of the time", v.seen.Kill)
		return ended(grid.ClassHalt, 137)
	})
	if r.Class != grid.ClassHalt {
		t.Errorf("got %q", r.Class)
	}
}

// TestRecoveredAttemptIsStored ends an attempt while no agent is running: the next agent stores
// what the attempt saved, and treats its end as that of a program that saves.
func TestRecoveredAttemptIsStored(t *testing.T) {
	for _, code := range []int{85, 0} {
		store, err := checkpoint.OpenStore(t.TempDir(), 1<<30, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		s := newHarness(t, nil)
		r := s.createCheckpointSweep(code)
		id := grid.TrialID{Sweep: r.ID}
		c := newCheckpoints(&Config{Dir: s.dir, Logger: logger(t)}, newSweepSet(), nil)
		had, err := c.acquire(t.Context(), id)
		if err == nil {
			err = had.prepare(1, resumePoint{}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		incrementStep(t, had.liveDir())
		had.release()
		out := ended(grid.ClassNone, 0)
		if code != 0 {
			out = ended(grid.ClassExit, code)
		}
		dir := s.spool(1, &manifest{Sweep: r.ID, Attempt: 1, Run: "n.1.1", Started: began}, "")
		if err := executor.WriteRecord(filepath.Join(dir, "outcome.json"), "n.1.1", out); err != nil {
			t.Fatal(err)
		}
		w := s.worker(nil)
		w.cfg.Snapshots.Remote = store
		if err := w.recovery.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		e := (&outboxHarness{t: t, store: s.store}).stored(r.ID)
		if len(e) != 1 || code == 85 && (e[0].Result.Class != grid.ClassPreempt || e[0].Result.Snapshot != 1) ||
			code == 0 && e[0].Result.Class != grid.ClassNone {
			t.Errorf("exit code %d: got %+v", code, e)
		}
		n, _ := store.Newest(id)
		_, err = os.Stat(had.liveDir())
		if want := code == 85; (n == 1) != want || (err == nil) != want {
			t.Errorf("exit code %d: got snapshot %d and the folder %v", code, n, err)
		}
	}
}

// createCheckpointSweep stores the record of a sweep whose trials save their state.
func (s *harness) createCheckpointSweep(n int) *grid.Sweep {
	return s.sweep(grid.SweepID(fmt.Sprintf("recovered-%d", n)), 1, 1, func(r *grid.Sweep) {
		c := grid.DefaultCheckpoint()
		r.Task.Checkpoint = &c
	})
}

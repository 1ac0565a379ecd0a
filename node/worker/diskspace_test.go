package worker

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/poll"
)

// mountSmallDisk mounts a small file system on a folder, for tests of a full disk.
func mountSmallDisk(t *testing.T) string {
	t.Helper()
	if raceDetector {
		t.Skip(
			"nats-server itself races with its clients when JetStream is reopened, which the race detector takes for a fault here",
		)
	}
	return gridtest.SmallDisk(t, "96m", unix.MNT_DETACH)
}

// fillDisk writes until the disk is full, and returns a func that makes room again.
func fillDisk(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// awaitRefusal waits until the store can't be written to.
func awaitRefusal(t *testing.T, store *jetstream.Store) {
	t.Helper()
	big := make([]byte, 200_000)
	eventually(t, "the store refuses", func() bool {
		_, _, err := store.Logs.Publish(t.Context(), "other-1", []jetstream.Chunk{{Data: big}})
		return err != nil
	})
}

// awaitWritable waits until the store can be written to again.
func awaitWritable(t *testing.T, store *jetstream.Store) {
	t.Helper()
	eventually(t, "the store can be written again", func() bool {
		_, err := store.Records.NextNumber(t.Context(), "t")
		_, _, events := store.Events.Bounds(t.Context())
		return err == nil && events == nil
	})
}

// TestArtifactsWaitForTheDisk ends a trial with artifacts on a full disk: they are stored once
// there is room.
func TestArtifactsWaitForTheDisk(t *testing.T) {
	disk := mountSmallDisk(t)
	// A full disk can lose the report that a lease has ended, and the lease may then return.
	began, end := make(chan struct{}, 4), make(chan struct{})
	s := newHarnessOver(t, filepath.Join(disk, "store"), func(_ context.Context, a *executor.Attempt) executor.Outcome {
		write(t, filepath.Join(variable(a.Env, "MLF_OUT"), "model"), "weights")
		began <- struct{}{}
		<-end
		return succeeded()
	})
	r := s.sweep("t-1", 1, 1, nil)
	s.lease(r, 0, 1)
	s.run()
	receive(t, "the trial", began)
	empty := fillDisk(t, disk)
	awaitRefusal(t, s.store)
	close(end)
	eventually(t, "the program has ended", func() bool { return len(s.tail.watched()) == 0 })
	empty()
	awaitWritable(t, s.store)
	if got := s.finished(r.ID, 1)[0].Result; got.Class != grid.ClassNone || got.Files.Count != 1 || got.Reason != "" {
		t.Errorf("result: got %+v, want a success with one file", got)
	}
}

// TestStopOnAFullDisk stops a worker whose trials have more to report than it holds in memory. It
// stops soon all the same, and the next start reports the rest.
func TestStopOnAFullDisk(t *testing.T) {
	disk := mountSmallDisk(t)
	began, end := make(chan struct{}, 4), make(chan struct{})
	text := bytes.Repeat([]byte("0123456789abcde\n"), 8<<16) // 8 MiB from each of four trials
	s := newHarnessOver(t, filepath.Join(disk, "store"), func(_ context.Context, a *executor.Attempt) executor.Outcome {
		began <- struct{}{}
		<-end
		a.Stdout.Write(text)
		return succeeded()
	})
	r := s.sweep("t-1", 4, 1, func(r *grid.Sweep) { r.Task.LogLimit = 6 << 20 })
	s.lease(r, 0, 4)
	s.run()
	for range 4 {
		receive(t, "a trial", began)
	}
	empty := fillDisk(t, disk)
	awaitRefusal(t, s.store)
	close(end)
	eventually(t, "the outbox is full", func() bool {
		s.outbox.mu.Lock()
		defer s.outbox.mu.Unlock()
		return s.outbox.pending.bytes >= outboxBytes
	})
	stopped := make(chan struct{})
	go func() {
		s.stop()
		close(stopped)
	}()
	receive(t, "the worker to stop on a full disk", stopped)
	empty()
	awaitWritable(t, s.store)
	if err := s.worker(nil).recovery.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	results := map[int64]*grid.Result{}
	for _, e := range s.finished(r.ID, 4) {
		results[e.Index] = e.Result
		got := s.output(r.ID, e.Run, streamOut)
		if e.Result.Class != grid.ClassNone || e.Result.Log.Cut != int64(len(text)-6<<20) ||
			got != string(text[:6<<20]) {
			t.Errorf("trial %d: got class %q, %+v, %d bytes of output; want a success, cut visibly at 6 MiB",
				e.Index, e.Result.Class, e.Result.Log, len(got))
		}
	}
	if len(results) != 4 {
		t.Errorf("results: got %d, want 4", len(results))
	}
}

// TestClosedOutboxTakesNothing checks the order: nothing may be stored after a report that was left
// out.
func TestClosedOutboxTakesNothing(t *testing.T) {
	o := newOutbox(&Config{Node: "n", Logger: logger(t)})
	o.closeIfRefused()
	if poll.Closed(o.closed) {
		t.Error("an outbox gives up although the store has refused nothing")
	}
	o.refused.Store(true)
	o.closeIfRefused()
	o.closeIfRefused()
	if err := o.addOutput(t.Context(), "a-1", outputPiece{ref: &grid.LogRef{}}); err != errClosed {
		t.Errorf("write: got %v, want %v", err, errClosed)
	}
	o.addEvent("a-1", report{stored: func() { t.Error("an event that was left out is said to be stored") }})
	if o.pending.count > 0 {
		t.Errorf("queue: got %d reports, want none", o.pending.count)
	}
}

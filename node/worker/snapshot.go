package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
)

const (
	// snapshotTime bounds the storing of one snapshot, with all tries: a drained node waits for it. An upload that was cut off goes on
	// with the next snapshot.
	snapshotTime = 10 * time.Minute
	// fetchTime bounds the fetching of one, without which its trial can't go on.
	fetchTime = 2 * time.Hour
	// recoverTime is the same for what ended while no agent was there: the node takes no trials before.
	recoverTime = 20 * time.Second
	// partingTime is the same on a node that stops, for whose end somebody waits.
	partingTime = time.Minute
	// snapshotRetry is the wait after a try that failed, as when the master has not heard yet that this node holds the trial.
	snapshotRetry = 500 * time.Millisecond
	// maxSnapshots bounds the snapshots that a node sends and fetches at one time.
	maxSnapshots = 2
)

// errTooLarge says that a checkpoint is over its task's max_size.
var errTooLarge = errors.New("it is too large")

// lastingTries bounds the tries of what hardly changes by itself: a checkpoint that is always being written, a node that does not hold
// the trial although the master must have heard of it by now.
const lastingTries = 40

// transfer calls try until it works, ctx ends, or more tries are of no use. At most maxSnapshots transfers of a node are under way.
func (w *Worker) transfer(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	select {
	case w.transfers <- struct{}{}:
		defer func() { <-w.transfers }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for lasting := 0; ; {
		err := try(ctx)
		if errors.Is(err, checkpoint.ErrChanged) || errors.Is(err, checkpoint.ErrNotHeld) {
			lasting++
		}
		if err == nil || final(err) || lasting > lastingTries || ctx.Err() != nil {
			return err
		}
		w.log.Debug("a snapshot could not be transferred yet", "err", err)
		wait := time.NewTimer(snapshotRetry)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return err
		}
	}
}

// final reports whether another try would fail alike: what a master that is away or has no room on its disk answers may change.
func final(err error) bool {
	var local *fs.PathError
	return errors.Is(err, checkpoint.ErrFull) || errors.Is(err, checkpoint.ErrUnfit) || errors.Is(err, errTooLarge) ||
		errors.Is(err, fs.ErrNotExist) || errors.As(err, &local)
}

// fetch makes the folder of a trial the snapshot from which its attempt goes on.
func (w *Worker) fetch(ctx context.Context, a *attempt, s *saved) error {
	if w.cfg.Snapshots == nil {
		return errors.New("this node can't reach the master's snapshots")
	}
	err := w.transfer(ctx, fetchTime, func(ctx context.Context) error {
		return checkpoint.Restore(ctx, w.cfg.Snapshots, a.id, a.from.snapshot, s.live(), w.pacer)
	})
	if err == nil {
		w.log.Info("trial goes on from a snapshot", "trial", a.id, "attempt", a.number, "snapshot", a.from.snapshot)
	}
	return err
}

// store takes a snapshot of what the attempt's trial has saved and stores it on the master. It does nothing where nothing has changed
// since the last one.
func (w *Worker) store(ctx context.Context, a *attempt) error {
	s := a.saved
	return w.transfer(ctx, snapshotTime, func(ctx context.Context) error {
		files, err := checkpoint.Scan(s.live())
		if err != nil {
			return err
		}
		snapshot := &checkpoint.Snapshot{
			Attempt: a.number, Resumed: s.state.Resumed, Node: w.cfg.Node, Time: time.Now().UnixMicro(), Files: files,
		}
		if len(files) == 0 || s.state.Stored && s.read != nil && checkpoint.Same(s.read, files) {
			return nil
		}
		if size, most := snapshot.Size(), a.task.Checkpoint.MaxSize; size > most {
			return fmt.Errorf("%w: %s, and checkpoint.max_size is %s", errTooLarge, humanize.IBytes(uint64(size)), humanize.IBytes(uint64(most)))
		}
		if err := checkpoint.Read(ctx, s.live(), files, s.read); err != nil {
			return err
		}
		number, err := checkpoint.Send(ctx, w.cfg.Snapshots, a.id, snapshot, s.live(), w.pacer)
		if err != nil {
			return err
		}
		s.read = files
		state := s.state
		state.Base, state.Stored = number, true
		if err := s.note(state); err != nil { // then it is fetched although it is here
			w.log.Warn("a snapshot could not be noted", "trial", a.id, "err", err)
			s.state = state
		}
		return nil
	})
}

// storeOften stores what a running attempt has saved, every so often, until ctx ends. It waits until nothing has been written for a
// while, so that no half of a file is taken.
func (w *Worker) storeOften(ctx context.Context, a *attempt) {
	tick := time.NewTicker(a.task.Checkpoint.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.storeQuiet(ctx, a); err != nil && ctx.Err() == nil {
			w.log.Warn("what a running trial has saved could not be stored", "trial", a.id, "err", err)
		}
	}
}

func (w *Worker) storeQuiet(ctx context.Context, a *attempt) error {
	for {
		before, err := checkpoint.Scan(a.saved.live())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		wait := time.NewTimer(a.task.Checkpoint.Quiet)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
		after, again := checkpoint.Scan(a.saved.live())
		if err == nil && again == nil && checkpoint.Same(before, after) {
			return w.store(ctx, a)
		}
	}
}

// storing stores what the attempt has saved as long as it runs, as its task wants. The returned func ends that.
func (w *Worker) storing(ctx context.Context, a *attempt) (end func()) {
	if a.saved == nil || w.cfg.Snapshots == nil || a.task.Checkpoint.Every == 0 {
		return func() {}
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.storeOften(ctx, a)
	}()
	return func() {
		stop()
		<-ended
	}
}

// storeAtEnd stores what an attempt has saved that ended neither well nor for good, and names the snapshot in its result. The event and
// the lease wait for it, so that the next attempt, wherever it is, goes on from there.
func (w *Worker) storeAtEnd(ctx context.Context, a *attempt, r *grid.Result, limit time.Duration) {
	if a.saved == nil {
		return
	}
	r.Resumed = a.saved.state.Resumed
	switch {
	case r.Class == grid.ClassNone, r.Class == grid.ClassCancel && !errors.Is(context.Cause(ctx), executor.ErrCancelledSaving), r.Class == grid.ClassLost,
		r.Class == grid.ClassCheckpoint, r.Usage.Wall == 0, w.cfg.Snapshots == nil:
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), limit) // the attempt's own has ended
	defer stop()
	go func() {
		select {
		case <-w.hurried:
		case <-w.parted:
		case <-ctx.Done():
		}
		stop()
	}()
	if err := w.store(ctx, a); err != nil {
		w.log.Warn("what a trial has saved could not be stored", "trial", a.id, "attempt", a.number, "err", err)
		from := "from its beginning"
		if base := a.saved.state.Base; base > 0 {
			from = fmt.Sprintf("from snapshot %d", base)
		}
		r.Reason = joinReason(r.Reason, fmt.Sprintf("what it saved is on this node only (%v): elsewhere it goes on %s", err, from))
		return
	}
	r.Snapshot = a.saved.state.Base
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
	"mlfnode/node/poll"
	"mlfnode/projects"
)

const (
	// snapshotTimeout bounds the storing of one snapshot, with all retries: a drained node waits
	// for it. An upload that was cut off continues with the next snapshot.
	snapshotTimeout = 10 * time.Minute
	// fetchTimeout bounds the fetching of one snapshot, without which its trial can't continue.
	fetchTimeout = 2 * time.Hour
	// recoveryTimeout bounds the storing of all that ended while no agent was there: the node takes
	// no trials before.
	recoveryTimeout = 30 * time.Second
	// shutdownSnapshotTimeout bounds the snapshot of an attempt, from the end of its program, on a
	// node that stops: somebody waits for that.
	shutdownSnapshotTimeout = time.Minute
	// snapshotRetryInterval is the wait after a failed try, as when the master has not heard yet
	// that this node holds the trial.
	snapshotRetryInterval = 500 * time.Millisecond
	// maxTransfers bounds the snapshots that a node sends and fetches at one time.
	maxTransfers = 2
)

// errTransferTimeout ends the transfers of a node that stops or starts.
var errTransferTimeout = errors.New("the node starts or stops, and the time for snapshots is over")

// errTooLarge says that a checkpoint is over its task's max_size.
var errTooLarge = errors.New("it is too large")

// maxPersistentTries bounds the tries for errors that rarely go away: a checkpoint that is always
// being written, a node that does not hold the trial although the master must have heard of it by
// now.
const maxPersistentTries = 40

// copyPasses is how often a copy of a folder that is being written looks for files that were
// renamed meanwhile.
const copyPasses = 3

// maxDamagedTries is how often a snapshot that seems to be damaged is fetched: the network may be
// to blame.
const maxDamagedTries = 3

// snapshotUploads stores what trials save as snapshots on the master, and fetches them from there.
type snapshotUploads struct {
	cfg *Config

	transfers       chan struct{} // holds a token for each snapshot that is being sent or fetched
	limiter         *rate.Limiter
	stopping        chan struct{} // closed when the worker stops what runs
	shutdownTimeout time.Duration // shutdownSnapshotTimeout, except in tests
	graceEnded      chan struct{} // closed by endGrace
	endGrace        func()
}

func newSnapshotUploads(cfg *Config) *snapshotUploads {
	graceEnded := make(chan struct{})
	return &snapshotUploads{
		cfg: cfg, transfers: make(chan struct{}, maxTransfers), limiter: checkpoint.NewLimiter(cfg.Snapshots.Rate),
		stopping: make(chan struct{}), shutdownTimeout: shutdownSnapshotTimeout,
		graceEnded: graceEnded, endGrace: sync.OnceFunc(func() { close(graceEnded) }),
	}
}

// transfer calls try until it succeeds, ctx ends, or more tries are of no use. At most maxTransfers
// transfers of a node are under way. On a node that stops each has shutdownTimeout, the wait for
// its turn included.
func (su *snapshotUploads) transfer(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit.Round(time.Second)))
	defer stop()
	go func() {
		select {
		case <-su.stopping:
			time.AfterFunc(su.shutdownTimeout, func() { giveUp(errTransferTimeout) })
		case <-ctx.Done():
		}
	}()
	select {
	case su.transfers <- struct{}{}:
		defer func() { <-su.transfers }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for lasting, bad := 0, 0; ; {
		err := try(ctx)
		switch {
		case errors.Is(err, checkpoint.ErrChanged) || errors.Is(err, checkpoint.ErrNotHeld):
			lasting++
		case errors.Is(err, checkpoint.ErrDamaged) || errors.Is(err, checkpoint.ErrCorrupted):
			bad++
		}
		if err == nil || isPermanent(err) || lasting > maxPersistentTries || bad >= maxDamagedTries ||
			ctx.Err() != nil {
			return err
		}
		su.cfg.Logger.Debug("a snapshot could not be transferred yet", "err", err)
		if !poll.Sleep(ctx, snapshotRetryInterval) {
			return err
		}
	}
}

// isPermanent reports whether another try would fail in the same way: the answers of a master that
// is away, or has no room on its disk, may change.
func isPermanent(err error) bool {
	return errors.Is(err, checkpoint.ErrFull) || errors.Is(err, checkpoint.ErrUnfit) || errors.Is(err, errTooLarge) ||
		isLocalError(err) && !errors.Is(err, checkpoint.ErrDamaged)
}

// isLocalError reports whether an error of a transfer concerns this node's files, not its network.
func isLocalError(err error) bool {
	return errors.As(err, new(syscall.Errno)) && !errors.As(err, new(*net.OpError)) && !errors.As(err, new(*url.Error))
}

// fetchError is the reason why what a trial had saved could not be fetched.
type fetchError struct{ err error }

func (e *fetchError) Error() string {
	return "what the trial had saved could not be fetched: " + e.err.Error()
}
func (e *fetchError) Unwrap() error { return e.err }

// fetchFailure returns the result of an attempt that could not get what its trial had saved. From a
// damaged snapshot no other attempt can continue either; what failed on the way may succeed on
// another node. What this node could not write, or received other than it is stored, is a failure
// of the node.
func (a *attempt) fetchFailure(err *fetchError) *grid.Result {
	class := grid.ClassStorage
	switch {
	case errors.Is(err, checkpoint.ErrDamaged):
		class = grid.ClassCheckpoint
	case errors.Is(err, checkpoint.ErrCorrupted) || isLocalError(err):
		class = grid.ClassNode
	}
	r := a.failedResult(class, err.Error())
	r.Resumed = a.resumePoint.snapshot
	addFallbackReason(r)
	return r
}

// addFallbackReason says in the result of an attempt that could not read its state from where the
// next one continues.
func addFallbackReason(r *grid.Result) {
	if !r.Unreadable() {
		return
	}
	what := "what its node had of its state"
	if r.Resumed > 0 {
		what = fmt.Sprintf("snapshot %d", r.Resumed)
	}
	r.Reason = joinReason(
		r.Reason, what+" is not used again: the next attempt continues from an older snapshot, or from its beginning",
	)
}

// fetch replaces the folder of a trial by the snapshot from which its attempt continues.
func (su *snapshotUploads) fetch(ctx context.Context, a *attempt, s *checkpointFolder) error {
	if su.cfg.Snapshots.Remote == nil {
		return &fetchError{errors.New("this node can't reach the master's snapshots")}
	}
	err := su.transfer(ctx, fetchTimeout, func(ctx context.Context) error {
		return checkpoint.Restore(ctx, su.cfg.Snapshots.Remote, a.id, a.resumePoint.snapshot, s.liveDir(), su.limiter)
	})
	if err != nil {
		return &fetchError{err}
	}
	su.cfg.Logger.Info("trial resumes from a snapshot",
		"trial", a.id, "attempt", a.number, "snapshot", a.resumePoint.snapshot)
	return nil
}

// maxChangedTries is how often a folder that was quiet is read in place: one that takes so long to
// read that its program writes again meanwhile is copied first.
const maxChangedTries = 3

// store takes a snapshot of what the attempt's trial has saved and stores it on the master. It does
// nothing where nothing has changed since the last one. clean reports whether the files are
// complete, and ended says that the program writes no more. Of a program that may be writing, a
// copy is stored: the folder itself would change again and again while it is read.
func (su *snapshotUploads) store(
	ctx context.Context, a *attempt, ended bool, clean func([]checkpoint.File) bool,
) error {
	s := a.checkpoint
	changed := 0
	return su.transfer(ctx, snapshotTimeout, func(ctx context.Context) error {
		files, err := checkpoint.Scan(s.liveDir())
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return nil
		}
		state := s.state
		if s.lastFiles == nil || !checkpoint.Same(s.lastFiles, files) {
			snapshot := &checkpoint.Snapshot{
				Attempt: a.number, Resumed: s.state.Resumed, Node: su.cfg.Node, Time: time.Now().UnixMicro(),
				Files: files, Clean: clean(files),
			}
			if err := checkSnapshotSize(snapshot, a.task.Checkpoint.MaxSize); err != nil {
				return err
			}
			dir, known := s.liveDir(), s.lastFiles
			if !ended && (!snapshot.Clean || changed >= maxChangedTries) {
				dir, known = s.copyDir(), nil
				defer func() { _ = projects.RemoveTree(dir) }() // otherwise the next copy removes it
				if err := su.snapshotFromCopy(ctx, a, snapshot); err != nil {
					return err
				}
			}
			if err := checkpoint.HashFiles(ctx, dir, snapshot.Files, known); err != nil {
				if errors.Is(err, checkpoint.ErrChanged) {
					changed++
				}
				return err
			}
			state.Base, err = checkpoint.Send(ctx, su.cfg.Snapshots.Remote, a.id, snapshot, dir, su.limiter)
			if err != nil {
				if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
					// from a store on this machine: sending writes nothing here
					err = fmt.Errorf("the master has no room on its disk: %v", err)
				}
				return err
			}
			if s.lastFiles = snapshot.Files; dir != s.liveDir() {
				s.lastFiles = nil
			}
		}
		if state.Stored = ended; state == s.state {
			return nil
		}
		if err := s.writeState(state); err != nil { // the next attempt fetches it although it is here
			su.cfg.Logger.Warn("a snapshot could not be recorded", "trial", a.id, "err", err)
			s.state = state
		}
		return nil
	})
}

// snapshotFromCopy copies the attempt's folder, and turns the snapshot into one of the copy.
func (su *snapshotUploads) snapshotFromCopy(ctx context.Context, a *attempt, snapshot *checkpoint.Snapshot) error {
	if err := checkCopyRoom(su.cfg.Dir, snapshot.Size()); err != nil {
		return err
	}
	still, err := a.checkpoint.copyLive(ctx, snapshot.Files)
	if err != nil {
		return fmt.Errorf("copy the checkpoint: %w", err)
	}
	snapshot.Clean = snapshot.Clean && still
	if snapshot.Files, err = checkpoint.Scan(a.checkpoint.copyDir()); err != nil {
		return err
	}
	return checkSnapshotSize(snapshot, a.task.Checkpoint.MaxSize) // it may have grown meanwhile
}

// checkSnapshotSize returns errTooLarge for a snapshot of more than most bytes.
func checkSnapshotSize(s *checkpoint.Snapshot, most int64) error {
	if size := s.Size(); size > most {
		return fmt.Errorf(
			"%w: %s, and checkpoint.max_size is %s", errTooLarge, humanize.IBytes(uint64(size)),
			humanize.IBytes(uint64(most)),
		)
	}
	return nil
}

// checkCopyRoom returns an error if a copy of this size would fill the disk of dir. A disk that
// does not report its room is tried.
func checkCopyRoom(dir string, size int64) error {
	if d, err := readDiskUsage(dir); err == nil && d.free-minFreeDisk < size {
		return fmt.Errorf("the checkpoint of %s can't be copied, since %s are free: %w",
			humanize.IBytes(uint64(size)), humanize.IBytes(uint64(d.free)), syscall.ENOSPC)
	}
	return nil
}

// copyLive copies a scan of the attempt's folder to copyDir, although its program may be writing to
// it, and reports whether nothing has changed meanwhile. What a program renames during the copy is
// looked up again under its new name.
func (s *checkpointFolder) copyLive(ctx context.Context, files []checkpoint.File) (still bool, err error) {
	if err := projects.RemoveTree(s.copyDir()); err != nil {
		return false, err
	}
	if err := os.Mkdir(s.copyDir(), 0o700); err != nil {
		return false, err
	}
	var entries []folderEntry
	done := map[string]bool{}
	for range copyPasses {
		missed := false
		for i := range files {
			f := &files[i]
			if done[f.Path] {
				continue
			}
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			e := folderEntry{
				path: f.Path, mode: f.Mode, time: time.Unix(0, f.MTime), size: f.Size,
				source: filepath.Join(s.liveDir(), f.Path), link: f.Link,
			}
			switch err := e.create(s.copyDir()); {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
				missed = true
			case err != nil:
				return false, err
			default:
				entries, done[f.Path] = append(entries, e), true
			}
		}
		again, err := checkpoint.Scan(s.liveDir())
		if err != nil {
			return false, err
		}
		if still = checkpoint.Same(files, again); still || !missed {
			break
		}
		files = again
	}
	return still, setFolderModes(s.copyDir(), entries)
}

// startPeriodic stores what the attempt saves while it runs, if its task asks for that. The
// returned func ends it.
func (su *snapshotUploads) startPeriodic(ctx context.Context, a *attempt) (end func()) {
	if a.checkpoint == nil || su.cfg.Snapshots.Remote == nil || a.task.Checkpoint.Every == 0 {
		return func() {}
	}
	ctx, stop := context.WithCancel(ctx)
	var storing sync.WaitGroup
	storing.Go(func() { su.storePeriodically(ctx, a) })
	return func() {
		stop()
		storing.Wait()
	}
}

// storePeriodically stores what a running attempt has saved at the interval of its task, until ctx
// ends.
func (su *snapshotUploads) storePeriodically(ctx context.Context, a *attempt) {
	tick := time.NewTicker(a.task.Checkpoint.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		atRest := a.awaitQuiet(ctx)
		if !atRest && !a.checkpoint.neverQuiet && ctx.Err() == nil {
			a.checkpoint.neverQuiet = true // read once this func has returned
			su.cfg.Logger.Warn("a trial never stops writing its state, and what is stored of it may be torn",
				"trial", a.id, "quiet", a.task.Checkpoint.Quiet)
		}
		err := su.store(ctx, a, false, func([]checkpoint.File) bool { return atRest })
		if err != nil && ctx.Err() == nil {
			su.cfg.Logger.Warn("what a running trial has saved could not be stored", "trial", a.id, "err", err)
		}
	}
}

// quietPeriods is for how many times `quiet` a trial that writes its state may be waited for, where
// `every` does not allow more.
const quietPeriods = 3

// awaitQuiet waits until nothing has been written to the attempt's folder for `quiet`, so that no
// incomplete file is taken, and returns false when that does not happen.
func (a *attempt) awaitQuiet(ctx context.Context) bool {
	quiet := a.task.Checkpoint.Quiet
	limit := time.Now().Add(max(a.task.Checkpoint.Every, quietPeriods*quiet))
	for {
		before, err := checkpoint.Scan(a.checkpoint.liveDir())
		if !poll.Sleep(ctx, quiet) {
			return false
		}
		after, again := checkpoint.Scan(a.checkpoint.liveDir())
		if err == nil && again == nil && checkpoint.Same(before, after) {
			return true
		}
		if time.Now().After(limit) {
			return false
		}
	}
}

// storeFinal stores what an attempt has saved that did not succeed and may run again, and names the
// snapshot in its result. The event and the lease wait for it, so that the next attempt, wherever
// it runs, continues from there.
func (su *snapshotUploads) storeFinal(a *attempt, r *grid.Result, end finishOptions) {
	if a.checkpoint == nil {
		return
	}
	r.Resumed = a.checkpoint.state.Resumed
	addFallbackReason(r)
	if a.checkpoint.neverQuiet {
		r.Reason = joinReason(r.Reason, fmt.Sprintf(
			"it wrote to $MLF_CHECKPOINT without a pause of %s, so what was stored every %s may be torn: "+
				"see checkpoint.quiet", a.task.Checkpoint.Quiet, a.task.Checkpoint.Every,
		))
	}
	switch {
	case r.Class == grid.ClassNone, r.Class == grid.ClassCancel && !end.saving, r.Class == grid.ClassStopped,
		r.Class == grid.ClassLost, r.Class == grid.ClassCheckpoint, r.Usage.Wall == 0, su.cfg.Snapshots.Remote == nil:
		return
	case a.checkpoint.state.Stored && a.checkpoint.state.Attempt == a.number: // by an agent that died afterwards
		r.Snapshot = a.checkpoint.state.Base
		return
	}
	ctx, giveUp := context.WithCancelCause(context.Background()) // the attempt's own context has ended
	defer giveUp(nil)
	ctx, stop := context.WithTimeoutCause(ctx, end.snapshotTimeout, errTransferTimeout)
	defer stop()
	go func() {
		select {
		case <-su.graceEnded:
			giveUp(errTransferTimeout)
		case <-ctx.Done():
		}
	}()
	// The program left its folder complete if it says so (exit code 85), if it ended by itself
	// after a notice of any kind, or if it had not written for a while.
	noticed := r.Class == grid.ClassHalt || r.Class == grid.ClassPreempt || r.Class == grid.ClassCancel
	clean := r.ExitCode == grid.ExitSaved || noticed && r.ExitCode >= 0 && r.ExitCode < 128
	programEnd, quiet := time.UnixMicro(r.Started+r.Usage.Wall), max(a.task.Checkpoint.Quiet, time.Second)
	if err := su.store(ctx, a, true, func(files []checkpoint.File) bool {
		return clean || programEnd.Sub(checkpoint.LastChange(files)) >= quiet
	}); err != nil {
		su.cfg.Logger.Warn("what a trial has saved could not be stored", "trial", a.id, "attempt", a.number, "err", err)
		from := "from its beginning"
		if base := a.checkpoint.state.Base; base > 0 {
			from = fmt.Sprintf("from snapshot %d", base)
		}
		r.Reason = joinReason(
			r.Reason, fmt.Sprintf("what it saved is on this node only (%v): elsewhere it continues %s", err, from),
		)
		return
	}
	r.Snapshot = a.checkpoint.state.Base
}

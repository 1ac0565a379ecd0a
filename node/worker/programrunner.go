package worker

import (
	"context"
	"errors"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// programRunner runs the programs of attempts, and determines their outcomes.
type programRunner struct {
	cfg        *Config
	sweeps     *sweepSet
	tail       *outputTail
	snapshots  *snapshotUploads
	devices    *DeviceTracker
	disk       *diskMonitor
	containers *taskContainers
}

// run runs an attempt's program, or waits for one that runs already, and meanwhile sends its output
// and stores what it saves. A program that continues without this agent is left alone.
func (pg *programRunner) run(
	ctx context.Context, a *attempt, run func(context.Context) executor.Outcome,
) executor.Outcome {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a.mu.Lock()
	a.cancelProgram = stop
	a.mu.Unlock()
	if pg.sweeps.isCancelled(a.id) {
		a.cancel()
	}
	pg.tail.watch(a)
	endStoring := pg.snapshots.startPeriodic(ctx, a)
	out := run(ctx)
	endStoring()
	pg.tail.unwatch(a)
	a.mu.Lock()
	a.cancelProgram = nil
	a.mu.Unlock()
	if why := earlyStop(""); errors.As(context.Cause(ctx), &why) && out.Class == grid.ClassCancel {
		out.Class, out.Reason = grid.ClassStopped, why.Error()
	}
	if out.Left {
		pg.tail.drain(a)
		a.spool.close()
		pg.cfg.Logger.Info("attempt is left to the next agent", "trial", a.id, "attempt", a.number)
	}
	return out
}

// result turns what the executor saw of an attempt into its result.
func (pg *programRunner) result(s *grid.Sweep, a *attempt, out executor.Outcome) *grid.Result {
	r := a.resultOf(out)
	pg.devices.end(a, r)
	pg.disk.attribute(a, r)
	if r.Class == grid.ClassImage {
		pg.containers.recheckImage(s) // the image has been removed
	}
	return r
}

// resultOf turns what the executor saw into the attempt's result.
func (a *attempt) resultOf(out executor.Outcome) *grid.Result {
	a.recordCutOutput(&out)
	r := &grid.Result{
		Class: out.Class, ExitCode: out.ExitCode, Reason: out.Reason, Started: out.Start.UnixMicro(), Usage: out.Usage,
	}
	if out.Start.IsZero() {
		r.Started = a.started.UnixMicro()
	}
	if c := a.task.Checkpoint; c != nil {
		// A folder that is not known counts as not empty.
		saved := a.checkpoint == nil || !isEmpty(a.checkpoint.liveDir())
		switch {
		case r.Class == grid.ClassExit && r.ExitCode == grid.ExitSaved && !saved:
			r.Reason = joinReason(r.Reason,
				"exit code 85 means that the state is saved, but nothing is in $MLF_CHECKPOINT")
		case r.Class == grid.ClassExit && r.ExitCode == grid.ExitSaved:
			r.Class, r.Reason = grid.ClassPreempt, "it saved its state and asked to be run again (exit code 85)"
		case r.Class == grid.ClassTimeout && c.OnTimeout == grid.TimeoutResumes && saved:
			r.Class, r.Reason = grid.ClassPreempt, r.Reason+"; it continues from its checkpoint"
		}
	}
	if a.foreignProcesses = out.Foreign != ""; a.foreignProcesses {
		r.Reason = joinReason(r.Reason,
			"left running, as this node may not end the processes of other users: "+out.Foreign)
	}
	return r
}

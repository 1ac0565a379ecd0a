package worker

import (
	"context"
	"log/slog"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// programRunner runs the programs of attempts, and determines their outcomes.
type programRunner struct {
	log        *slog.Logger
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
	ctx = a.stopContext(ctx)
	if pg.sweeps.isCancelled(a.id) {
		a.cancel()
	}
	pg.tail.watch(a)
	endStoring := pg.snapshots.startPeriodic(ctx, a)
	out := run(ctx)
	endStoring()
	pg.tail.unwatch(a)
	a.applyEarlyStop(ctx, &out)
	if out.Left {
		pg.tail.drain(a)
		a.spool.close()
		pg.log.Info("attempt is left to the next agent", "trial", a.id, "attempt", a.number)
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
	a.applyCheckpointRules(r)
	if a.foreignProcesses = out.Foreign != ""; a.foreignProcesses {
		r.Reason = joinReason(
			r.Reason, "left running, as this node may not end the processes of other users: "+out.Foreign,
		)
	}
	return r
}
